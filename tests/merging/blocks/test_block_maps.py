"""Named blocks: the map from canonical module paths, and block weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from optimizer.errors import RecipeError
from optimizer.merging import BLOCK_MAPS, Recipe, block_map, block_of, block_weight, merge
from tests.merging.samples import make_adapter


@pytest.mark.parametrize(
    ("path", "block"),
    [
        ("unet.conv_in", "IN00"),
        ("unet.down_blocks.0.resnets.0.conv1", "IN01"),
        ("unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k", "IN02"),
        ("unet.down_blocks.0.downsamplers.0.conv", "IN03"),
        ("unet.down_blocks.1.attentions.0.proj_in", "IN04"),
        ("unet.down_blocks.2.downsamplers.0.conv", "IN09"),
        ("unet.down_blocks.3.resnets.1.time_emb_proj", "IN11"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj", "MID"),
        ("unet.mid_block.resnets.1.conv2", "MID"),
        ("unet.up_blocks.0.resnets.0.conv1", "OUT00"),
        ("unet.up_blocks.0.upsamplers.0.conv", "OUT02"),
        ("unet.up_blocks.1.attentions.2.proj_out", "OUT05"),
        ("unet.up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_out.0", "OUT11"),
        ("unet.time_embedding.linear_1", "BASE"),
        ("unet.conv_out", "BASE"),
        ("unet.conv_in_extra", "BASE"),
        ("text_encoder.text_model.encoder.layers.11.mlp.fc1", "TE"),
        ("text_encoder_2.text_model.encoder.layers.1.mlp.fc1", "TE2"),
        ("text_encoder_3.encoder.block.0.layer.0", "BASE"),
        ("transformer.down_blocks.0.resnets.0", "BASE"),
    ],
)
def test_block_of_a_path(path: str, block: str) -> None:
    assert block_of(path) == block


def unet_of(**config: Any) -> torch.nn.Module:
    """A U-Net of full size without memory for its weights."""
    with torch.device("meta"):
        unet: torch.nn.Module = UNet2DConditionModel(**config)
    return unet


def with_attention(unet: torch.nn.Module, base: str) -> set[str]:
    return {block_of(f"unet.{name}", base) for name, _ in unet.named_modules() if name.endswith("attn1.to_q")}


def numbered(family: str, numbers: range | list[int]) -> set[str]:
    return {f"{family}{i:02d}" for i in numbers}


def test_attention_of_sd1_sits_in_the_seventeen_blocks_of_lbw() -> None:
    unet = unet_of(cross_attention_dim=768)
    assert with_attention(unet, "sd1") == numbered("IN", [1, 2, 4, 5, 7, 8]) | {"MID"} | numbered("OUT", range(3, 12))


def test_every_block_of_sd1_has_modules_and_no_module_has_an_unnamed_block() -> None:
    unet = unet_of(cross_attention_dim=768)
    paths = [f"unet.{name}" for name, module in unet.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    assert {block_of(path) for path in paths} | {"TE"} == set(BLOCK_MAPS["sd1"].names)


def test_attention_of_sdxl_sits_in_the_twelve_blocks_of_lbw() -> None:
    unet = unet_of(
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
    )
    paths = [f"unet.{name}" for name, module in unet.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    assert with_attention(unet, "sdxl") == numbered("IN", [4, 5, 7, 8]) | {"MID"} | numbered("OUT", range(6))
    assert {block_of(path, "sdxl") for path in paths} | {"TE", "TE2"} == set(BLOCK_MAPS["sdxl"].names)


def test_the_exact_name_wins_over_its_family() -> None:
    weights = {"IN": 0.5, "IN04": 2.0, "TE": 0.25, "TE2": 3.0}
    in_four, in_five = "unet.down_blocks.1.attentions.0.proj_in", "unet.down_blocks.1.attentions.1.proj_in"
    assert block_weight(in_four, weights) == 2.0
    assert block_weight(in_five, weights) == 0.5
    assert block_weight("unet.mid_block.resnets.0.conv1", weights) == 1.0
    assert block_weight("text_encoder.x", weights) == 0.25
    assert block_weight("text_encoder_2.x", weights) == 3.0
    assert block_weight("text_encoder_2.x", {"TE": 0.25}) == 0.25
    assert block_weight(in_four, {}) == 1.0


def test_families() -> None:
    assert block_map("sdxl").families == ("BASE", "TE", "IN", "MID", "OUT")


def test_an_unknown_block_is_refused_with_the_valid_names() -> None:
    with pytest.raises(RecipeError, match=r"recipe: blocks\.1: unknown block 'IN4' — valid names: BASE, TE, IN, MID, OUT, IN00, .*TE2"):
        Recipe(method="linear", weights=(1.0, 1.0), blocks=({}, {"IN4": 0.5}))


def test_a_block_of_another_architecture_is_refused_at_the_merge() -> None:
    recipe = Recipe(method="linear", weights=(1.0,), blocks=({"OUT11": 0.5},))
    with pytest.raises(RecipeError, match=r"blocks\.0: unknown block 'OUT11' of the base 'sdxl' — valid names: .*OUT08$"):
        merge([make_adapter(1, base="sdxl")], recipe)


def test_a_base_without_named_blocks_is_refused_by_name() -> None:
    recipe = Recipe(method="linear", weights=(1.0,), blocks=({"IN": 0.5},))
    with pytest.raises(RecipeError, match=r"blocks: no named blocks are known for the base 'other' — leave the block weights out"):
        merge([make_adapter(1, base="other")], recipe)
    assert merge([make_adapter(1, base="other")], Recipe(method="linear", weights=(1.0,))).base == "other"


@pytest.mark.parametrize(
    ("path", "base", "block"),
    [
        ("transformer.transformer_blocks.0.attn.to_q", "flux1", "DOUBLE_00"),
        ("transformer.transformer_blocks.18.norm1.linear", "flux1", "DOUBLE_18"),
        ("transformer.single_transformer_blocks.1.proj_mlp", "flux1", "SINGLE_01"),
        ("transformer.single_transformer_blocks.10.proj_mlp", "flux1", "SINGLE_10"),
        ("transformer.x_embedder", "flux1", "BASE"),
        ("text_encoder_2.encoder.block.0.layer.0.SelfAttention.q", "flux1", "TE2"),
        ("transformer.transformer_blocks.37.attn2.to_q", "sd3", "JOINT_37"),
        ("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q", "sd3", "TE3"),
    ],
)
def test_blocks_of_transformers(path: str, base: str, block: str) -> None:
    assert block_of(path, base) == block
    assert block in block_map(base).names


def test_the_blocks_of_flux_are_those_of_lbw() -> None:
    assert len(block_map("flux1").names) == 1 + 2 + 19 + 38
    assert block_map("flux1").families == ("BASE", "TE", "DOUBLE", "SINGLE")
