"""The original codes' names, as the makers of test files spell them, against diffusers' own conversion of checkpoints and LoRAs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_xlabs_flux_lora_to_diffusers
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_sd3_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file
from torch import Tensor

from optimizer.adapters.families import FAMILIES
from optimizer.adapters.names.keys import target_of
from tests.formats import DIALECTS, make, native, shapes
from tests.tiny import tiny_pipeline, tiny_xl_pipeline


def checkpoint(family: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The denoiser's weights by their original names, random, and the same by their canonical paths."""
    torch.manual_seed(0)
    weights = {weight.name: torch.randn(weight.shape) for weight in native(family, "", False, None)}
    modules = {path: weights[w.name][rows] for w in native(family, "", False, None) for path, rows in w.modules.items()}
    return weights, modules


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_u_nets(family: str) -> None:
    weights, modules = checkpoint(family)
    config: dict[str, Any] = dict((tiny_pipeline() if family == "sd1" else tiny_xl_pipeline()).unet.config)
    given = {f"model.diffusion_model.{name}.{end}": value for name, value in weights.items() for end in ("weight", "bias")}
    for block in ("input_blocks", "output_blocks", "middle_block"):  # norms, which LoRAs do not change and the conversion asks for
        for name in [name for name in weights if name.startswith(block) and name.endswith("in_layers.2")]:
            for norm, end in (("in_layers.0", "weight"), ("out_layers.0", "weight"), ("in_layers.0", "bias"), ("out_layers.0", "bias")):
                given[f"model.diffusion_model.{name.removesuffix('in_layers.2')}{norm}.{end}"] = torch.zeros(1)
    given |= {f"model.diffusion_model.out.0.{end}": torch.zeros(1) for end in ("weight", "bias")}
    converted = convert_ldm_unet_checkpoint(given, config)
    for path, weight in modules.items():
        assert torch.equal(converted[f"{path.removeprefix('unet.')}.weight"], weight), path


def test_stable_diffusion_3() -> None:
    weights, modules = checkpoint("sd3")
    given = {f"{name}.weight": value for name, value in weights.items()}
    given |= {f"{name}.bias": torch.zeros(len(value)) for name, value in weights.items()} | {"pos_embed": torch.zeros(1)}
    converted = convert_sd3_transformer_checkpoint_to_diffusers(given)
    for path, weight in modules.items():
        assert torch.equal(converted[f"{path.removeprefix('transformer.')}.weight"], weight), path


def test_xlabs(tmp_path: Path) -> None:
    made = make(tmp_path / "a.safetensors", "xlabs", "flux1", "LoRA")
    converted = _convert_xlabs_flux_lora_to_diffusers(load_file(made.path))
    assert {name.partition(".lora_")[0] for name in converted} == set(made.deltas)
    for path, delta in made.deltas.items():
        got = converted[f"{path}.lora_B.weight"].float() @ converted[f"{path}.lora_A.weight"].float()
        torch.testing.assert_close(got, delta)


@pytest.mark.parametrize(("dialect", "family"), [(name, family) for name, dialect in DIALECTS.items() for family in dialect.families])
def test_every_name_stands_for_its_modules(dialect: str, family: str) -> None:
    for weight in DIALECTS[dialect].weights(family):
        stem = weight.name.removesuffix("_lora")
        target = target_of(stem, FAMILIES[family])
        assert target, weight.name
        assert target.paths[: len(weight.modules)] == tuple(weight.modules)


def test_the_upsampling_comes_after_the_attention_if_there_is_one() -> None:
    """In the first level on the way out, Stable Diffusion 1.x has none and XL has."""
    for name, family in (("output_blocks.2.1.conv", "sd1"), ("output_blocks.2.2.conv", "sdxl"), ("output_blocks.5.2.conv", "sd1")):
        target = target_of(f"diffusion_model.{name}", FAMILIES[family])
        assert target
        assert target.paths == (f"unet.up_blocks.{int(name.split('.')[1]) // 3}.upsamplers.0.conv",)
    assert target_of("diffusion_model.output_blocks.2.2.conv", FAMILIES["sd1"]) is None


@pytest.mark.parametrize(
    "name",
    [
        *("input_blocks.1.1", "input_blocks.3.1.op", "input_blocks.3.0.in_layers.2", "input_blocks.1.0.op"),
        *("output_blocks.2.0.conv", "output_blocks.1.2.conv", "output_blocks.1.2.proj_in", "middle_block.0.conv1"),
        *("middle_block.3.proj_in", "out.0", "input_blocks.0.1", "input_blocks.٣.0.op", "", "joint_blocks.0.x_block.attn.qkv.0"),
        *("double_blocks.00.img_attn.qkv", "double_blocks.#.img_attn.qkv", "double_blocks.1000.img_attn.qkv", "double_blocks.0.qkv"),
    ],
)
def test_near_misses(name: str) -> None:
    for family in FAMILIES.values():
        assert target_of(f"diffusion_model.{name}", family) is None
        assert target_of("lora_unet_" + name.replace(".", "_"), family) is None


def test_every_module_of_every_family_has_an_original_name() -> None:
    for family in FAMILIES.values():
        named = {module for record in family.native.values() for module in record.modules}
        for path in shapes(family.name):
            part, _, name = path.partition(".")
            if part == family.denoiser:
                target = target_of(f"{part}.{name}", family)
                assert target
                assert any(_follows(name, template) for template in named), path


def _follows(name: str, template: str) -> bool:
    pieces, wanted = name.split("."), template.split(".")
    return len(pieces) == len(wanted) and all(want in (piece, "#") for piece, want in zip(pieces, wanted, strict=True))
