"""Stability's own names of the U-Net's modules, against diffusers' conversion of them."""

from __future__ import annotations

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers
from torch import nn

from optimizer.adapters.keys import TensorName, read_name
from optimizer.adapters.sgm import diffusers_name, sgm_name
from tests.tiny import tiny_pipeline, tiny_xl_unet

UNET = tiny_xl_unet()
NAMES = [name for name, module in UNET.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]


@pytest.mark.parametrize("flat", [False, True])
def test_every_module_has_both_names(flat: bool) -> None:
    spelt = {name: sgm_name(name) or "" for name in NAMES}
    assert len(set(spelt.values())) == len(NAMES)
    for name, other in spelt.items():
        assert diffusers_name(other.replace(".", "_") if flat else other) == (name.replace(".", "_") if flat else name)


def test_blocks_are_those_that_diffusers_takes_them_for() -> None:
    """diffusers counts the blocks first and renames them and their leaves later; attentions have no other leaves."""
    attentions = {f"lora_unet_{(sgm_name(n) or '').replace('.', '_')}": n for n in NAMES if ".attentions." in n}
    found = _maybe_map_sgm_blocks_to_diffusers(dict.fromkeys(attentions, torch.ones(1)), UNET.config)
    renamed = {"input_blocks": "down_blocks", "middle_block": "mid_block", "output_blocks": "up_blocks"}
    names = {name.replace(old, new) for name in found for old, new in renamed.items() if old in name}
    assert names == {f"lora_unet_{name.replace('.', '_')}" for name in attentions.values()}


def test_an_upsampling_convolution_comes_after_the_attention_if_there_is_one() -> None:
    """Stable Diffusion 1.5's first level on the way out has none."""
    assert diffusers_name("output_blocks.2.1.conv") == diffusers_name("output_blocks.2.2.conv") == "up_blocks.0.upsamplers.0.conv"


def test_every_module_of_stable_diffusion_1_5_is_read_under_both_names() -> None:
    for name, module in tiny_pipeline().unet.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            for prefix, other in (("lora_unet_", sgm_name(name).replace(".", "_")), ("diffusion_model.", sgm_name(name))):
                assert read_name(f"{prefix}{other}.lora_up.weight") == TensorName(f"unet.{name}", "up")


@pytest.mark.parametrize(
    "name",
    [
        *("input_blocks.1.1", "input_blocks.3.1.op", "input_blocks.3.0.in_layers.2", "input_blocks.1.0.op", "input_blocks_1.0_in_layers_2"),
        *(
            "output_blocks.2.0.conv",
            "output_blocks.1.2.conv",
            "output_blocks.1.2.proj_in",
            "middle_block.0.conv1",
            "middle_block.3.proj_in",
        ),
        *("down_blocks.0.resnets.0.conv1", "conv_in", "out.0", "input_blocks.0.1", "input_blocks.٣.0.op", ""),
    ],
)
def test_other_names_are_not_taken_for_its(name: str) -> None:
    assert diffusers_name(name) is None


@pytest.mark.parametrize("name", ["encoder.layers.0.mlp.fc1", "mid_block.attentions.1.proj_in", "mid_block", ""])
def test_modules_that_it_does_not_have(name: str) -> None:
    assert sgm_name(name) is None


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (
            "lora_unet_input_blocks_4_1_transformer_blocks_9_attn2_to_out_0.lora_down.weight",
            "unet.down_blocks.1.attentions.0.transformer_blocks.9.attn2.to_out.0",
        ),
        ("lora_unet_output_blocks_5_0_skip_connection.lora_down.weight", "unet.up_blocks.1.resnets.2.conv_shortcut"),
        ("diffusion_model.middle_block.2.emb_layers.1.lora_down.weight", "unet.mid_block.resnets.1.time_emb_proj"),
        ("diffusion_model.label_emb.0.0.lora_A.weight", "unet.add_embedding.linear_1"),
        (
            "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc2.lora_down.weight",
            "text_encoder.text_model.encoder.layers.0.mlp.fc2",
        ),
        (
            "text_encoders.clip_h.transformer.text_model.encoder.layers.0.mlp.fc2.lora_down.weight",
            "text_encoder.text_model.encoder.layers.0.mlp.fc2",
        ),
        (
            "text_encoders.clip_g.transformer.text_model.encoder.layers.31.mlp.fc2.lora_down.weight",
            "text_encoder_2.text_model.encoder.layers.31.mlp.fc2",
        ),
    ],
)
def test_names_in_files(name: str, path: str) -> None:
    assert read_name(name) == TensorName(path, "down")
