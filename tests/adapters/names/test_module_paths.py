"""The grammar of module paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.adapters.families import FAMILIES
from optimizer.adapters.names.keys import suggestion, target_of
from optimizer.adapters.names.paths import TEMPLATES, from_dotted, kernel_size, split_path
from optimizer.adapters.names.targets import find_target
from optimizer.adapters.names.tensor_suffixes import Key, Refusal, split_key
from tests.tiny import tiny_pipeline, tiny_shapes

TEMPLATE = st.sampled_from([(part, template) for part, templates in TEMPLATES.items() for template in templates])


def from_flat(part: str, name: str) -> set[str]:
    """The paths that a name with underscores for dots stands for, in all families that have it."""
    return {path for family in FAMILIES.values() if (target := find_target(family, part, name, "_")) for path in target.paths}


@st.composite
def paths(draw: st.DrawFn) -> str:
    part, template = draw(TEMPLATE)
    pieces = template.split("#")
    indices = [str(draw(st.integers(0, 18))) for _ in pieces[1:]]
    return f"{part}." + "".join(piece + index for piece, index in zip(pieces, [*indices, ""], strict=True))


@given(paths())
def test_flattening_a_path_loses_nothing(path: str) -> None:
    part, name = split_path(path)
    assert path in from_flat(part, name.replace(".", "_"))
    assert from_dotted(part, name) == path


@given(st.text(alphabet="abcdefghilmnoprstuvwx_.0123456789", max_size=60))
def test_arbitrary_names_are_never_taken_for_a_module(name: str) -> None:
    for part in TEMPLATES:
        for path in (*from_flat(part, name), from_dotted(part, name)):
            assert path is None or split_path(path)[0] == part


@pytest.mark.parametrize(
    ("flat", "dotted"),
    [
        (
            "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0",
        ),
        ("down_blocks_1_attentions_1_transformer_blocks_0_ff_net_0_proj", "down_blocks.1.attentions.1.transformer_blocks.0.ff.net.0.proj"),
        ("mid_block_attentions_0_proj_in", "mid_block.attentions.0.proj_in"),
        ("up_blocks_1_resnets_2_time_emb_proj", "up_blocks.1.resnets.2.time_emb_proj"),
        ("up_blocks_1_resnets_2_conv_shortcut", "up_blocks.1.resnets.2.conv_shortcut"),
        ("down_blocks_2_downsamplers_0_conv", "down_blocks.2.downsamplers.0.conv"),
        ("time_embedding_linear_1", "time_embedding.linear_1"),
        ("conv_in", "conv_in"),
    ],
)
def test_underscores_inside_names_stay(flat: str, dotted: str) -> None:
    assert from_flat("unet", flat) == {f"unet.{dotted}"}


@pytest.mark.parametrize(
    "name",
    ["down_blocks_00_resnets_0_conv1", "down_blocks__resnets_0_conv1", "conv_in_extra", "Conv_in", "", "down_blocks_٣_resnets_0_conv1"],
)
def test_near_misses_are_not_modules(name: str) -> None:
    assert from_flat("unet", name) == set()


def test_the_inner_text_model_is_optional_in_files_and_canonical_in_memory() -> None:
    path = "text_encoder.text_model.encoder.layers.11.mlp.fc1"
    assert from_flat("text_encoder", "encoder_layers_11_mlp_fc1") == {path}
    assert from_dotted("text_encoder", "encoder.layers.11.mlp.fc1") == path
    with pytest.raises(ValueError, match="is not a canonical module path"):
        split_path("text_encoder.encoder.layers.11.mlp.fc1")


def test_every_linear_and_convolution_module_of_the_pipeline_has_a_path() -> None:
    from torch import nn

    pipeline = tiny_pipeline()
    live = [
        name
        for model in (pipeline.unet, pipeline.text_encoder)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    assert len(tiny_shapes()) == len(live)


def test_kernels_told_by_names_are_those_of_the_pipeline() -> None:
    for path, shape in tiny_shapes().items():
        if not path.endswith(("proj_in", "proj_out")):
            assert kernel_size(path) == shape[2:], path


def module_and_suffix(name: str, family: str = "sdxl") -> tuple[str, str]:
    key = split_key(name)
    assert isinstance(key, Key)
    target = target_of(key.stem, FAMILIES[family])
    assert target
    assert len(target.paths) == 1
    return target.paths[0], key.suffix


@pytest.mark.parametrize(
    ("name", "path", "suffix"),
    [
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.up.weight",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
            "up",
        ),
        (
            "mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_q_lora.down.weight",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q",
            "down",
        ),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q.lora.up.weight",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q",
            "up",
        ),
        ("base_model.model.mid_block.resnets.1.conv2.lora_A.default.weight", "unet.mid_block.resnets.1.conv2", "down"),
        ("base_model.model.unet.mid_block.resnets.1.conv2.lora_B.weight", "unet.mid_block.resnets.1.conv2", "up"),
        ("base_model.model.text_model.encoder.layers.3.mlp.fc2.lora_A.weight", "text_encoder.text_model.encoder.layers.3.mlp.fc2", "down"),
        (
            "text_encoder.text_model.encoder.layers.3.self_attn.to_out_lora.up.weight",
            "text_encoder.text_model.encoder.layers.3.self_attn.out_proj",
            "up",
        ),
        (
            "text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_linear_layer.down.weight",
            "text_encoder.text_model.encoder.layers.3.self_attn.q_proj",
            "down",
        ),
        ("lycoris_mid_block_resnets_1_conv2.lokr_w1", "unet.mid_block.resnets.1.conv2", "lokr_w1"),
        ("lycoris_unet_mid_block_resnets_1_conv2.lokr_w1", "unet.mid_block.resnets.1.conv2", "lokr_w1"),
        (
            "lycoris_text_encoder_text_model_encoder_layers_0_mlp_fc1.hada_w1_a",
            "text_encoder.text_model.encoder.layers.0.mlp.fc1",
            "hada_w1_a",
        ),
        ("lora_te1_encoder_layers_0_mlp_fc1.lora_up.weight", "text_encoder.text_model.encoder.layers.0.mlp.fc1", "up"),
    ],
)
def test_names_of_other_writers(name: str, path: str, suffix: str) -> None:
    assert module_and_suffix(name) == (path, suffix)


@pytest.mark.parametrize(
    ("name", "path", "suffix"),
    [
        ("lycoris_transformer_blocks_0_attn_to_q.lokr_w1", "transformer.transformer_blocks.0.attn.to_q", "lokr_w1"),
        ("lycoris_single_transformer_blocks_3_proj_mlp.hada_w1_a", "transformer.single_transformer_blocks.3.proj_mlp", "hada_w1_a"),
        ("transformer_blocks.7.ff.net.0.proj.lora_A.default_0.weight", "transformer.transformer_blocks.7.ff.net.0.proj", "down"),
        ("base_model.model.double_blocks.7.img_mlp.0.lora_A.weight", "transformer.transformer_blocks.7.ff.net.0.proj", "down"),
        ("single_blocks.9.processor.proj_lora.down.weight", "transformer.single_transformer_blocks.9.proj_out", "down"),
        ("double_blocks.9.processor.proj_lora2.up.weight", "transformer.transformer_blocks.9.attn.to_add_out", "up"),
        ("lora_transformer_norm_out_linear.lora_up.weight", "transformer.norm_out.linear", "up"),
        (
            "lora_te3_encoder_block_0_layer_1_DenseReluDense_wi_0.alpha",
            "text_encoder_2.encoder.block.0.layer.1.DenseReluDense.wi_0",
            "alpha",
        ),
        ("lora_te2_encoder_block_0_layer_0_SelfAttention_o.alpha", "text_encoder_2.encoder.block.0.layer.0.SelfAttention.o", "alpha"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", "text_encoder.text_model.encoder.layers.0.mlp.fc1", "alpha"),
    ],
)
def test_names_of_flux(name: str, path: str, suffix: str) -> None:
    assert module_and_suffix(name, "flux1") == (path, suffix)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".oft_r", "no longer writes"),
        (".diff_b", "bias"),
        (".w_norm", "normalisation"),
        (".bm.weight", "GLoRA"),
        (".lora_B.bias", "bias"),
        (".reshape_weight", "reshapes"),
    ],
)
def test_kinds_that_cannot_be_merged_are_refused_by_name(suffix: str, kind: str) -> None:
    meaning = split_key("lora_unet_mid_block_resnets_0_conv1" + suffix)
    assert isinstance(meaning, Refusal)
    assert kind in meaning.kind
    assert meaning.remedy


def test_an_unknown_name_is_shown_the_nearest_pattern() -> None:
    name = "lora_unet_mid_block_attentions_0_transformer_block_0_attn1_to_q.lora_up.weight"
    assert all(target_of(name.removesuffix(".lora_up.weight"), family) is None for family in FAMILIES.values())
    assert suggestion(name) == "lora_unet_mid_block_attentions_#_transformer_blocks_#_attn1_to_q"
    assert suggestion("text_encoder.encoder.layer.0.mlp.fc1.lora_A.weight") == "text_encoder.text_model.encoder.layers.#.mlp.fc1"
