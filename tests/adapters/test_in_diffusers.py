"""The written files, loaded by diffusers into a real pipeline: every weight of the model must be base + ΔW."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from lycoris.modules.lokr import LokrModule
from safetensors.torch import load_file
from torch import Tensor

from optimizer.adapters import (
    Adapter,
    Dialect,
    Factors,
    fit_shapes,
    live_modules,
    load_adapter,
    save_adapter,
    shape_mismatches,
    weight_shapes,
)
from optimizer.errors import BaseModelError
from optimizer.export.verify import distance
from optimizer.merging import Recipe, merge
from tests.files import diffusers_file, kohya_file, lycoris_file, random_parts
from tests.formats import VERSIONS
from tests.merging.samples import random_router
from tests.tiny import tiny_flux_pipeline, tiny_pipeline, tiny_qwen_pipeline, tiny_sd3_pipeline, tiny_shapes, tiny_xl_pipeline

SINGLE = "transformer.single_transformer_blocks.0"
PRECISIONS = [(torch.float16, 1e-3), (torch.float32, 1e-6)]
MIXED: tuple[Callable[[int], int], Callable[[int], float]] = (lambda i: 1 + i % 3, lambda i: (1.0, 2.0, 6.5)[i % 3])


def fused_changes(path: Path, pipeline: DiffusionPipeline | None = None) -> dict[str, Tensor]:
    """What diffusers adds to every linear and convolution weight of the pipeline when the file is loaded and fused."""
    pipeline = tiny_pipeline() if pipeline is None else pipeline
    components = {part: getattr(pipeline, part) for part in pipeline._lora_loadable_modules}
    before = {name: module.weight.detach().clone() for name, module in live_modules(components).items()}
    pipeline.load_lora_weights(path)
    pipeline.fuse_lora(components=list(components))
    pipeline.unload_lora_weights()
    after = live_modules(components)
    assert set(after) == set(before)
    return {name: after[name].weight.detach() - before[name] for name in before}


def assert_diffusers_applies(path: Path, adapter: Adapter, pipeline: DiffusionPipeline | None = None, tolerance: float = 1e-3) -> None:
    for name, change in fused_changes(path, pipeline).items():
        wanted = adapter.modules[name].delta() if name in adapter.modules else torch.zeros_like(change)
        assert float((change - wanted).norm()) <= 1e-6 + tolerance * float(wanted.norm()), name


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
@pytest.mark.parametrize("base", ["sd1", "sd2"])
def test_every_module(tmp_path: Path, base: str, dialect: Dialect, dtype: torch.dtype, tolerance: float) -> None:
    version = {"ss_base_model_version": VERSIONS[base]}
    source = load_adapter(kohya_file(tmp_path / "a.safetensors", random_parts(tiny_shapes(), *MIXED), metadata=version).path)
    assert source.base == base
    assert_diffusers_applies(save_adapter(source, tmp_path / "b.safetensors", dialect, dtype), source, tolerance=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
def test_every_module_of_stable_diffusion_xl(tmp_path: Path, dialect: Dialect, dtype: torch.dtype, tolerance: float) -> None:
    pipeline = tiny_xl_pipeline()
    shapes = weight_shapes({part: getattr(pipeline, part) for part in ("unet", "text_encoder", "text_encoder_2")})
    made = kohya_file(tmp_path / "a.safetensors", random_parts(shapes, *MIXED), text="lora_te1_")
    source = replace(load_adapter(made.path), base="sdxl")
    written = save_adapter(source, tmp_path / "b.safetensors", dialect, dtype)
    again = load_adapter(written)
    assert set(again.modules) == set(shapes)
    assert any("unet_input_blocks_" in key for key in load_file(written)) == (dialect == "kohya")
    assert not any("unet_down_blocks_" in key for key in load_file(written))
    for name, delta in made.deltas.items():
        torch.testing.assert_close(again.modules[name].delta(), delta, rtol=2e-3, atol=1e-4)
    assert_diffusers_applies(written, source, pipeline, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize(
    ("family", "dialect"),
    [("sd3", "diffusers"), ("flux1", "diffusers"), ("qwen-image", "diffusers"), ("qwen-image", "kohya"), ("qwen-image", "comfyui")],
)
def test_every_module_of_transformers(tmp_path: Path, family: str, dialect: Dialect, dtype: torch.dtype, tolerance: float) -> None:
    """T5 aside, into which diffusers loads no LoRA."""
    pipeline: Any = {"sd3": tiny_sd3_pipeline, "flux1": tiny_flux_pipeline, "qwen-image": tiny_qwen_pipeline}[family]()
    shapes = weight_shapes({part: getattr(pipeline, part) for part in pipeline._lora_loadable_modules})
    source = load_adapter(diffusers_file(tmp_path / "a.safetensors", random_parts(shapes, MIXED[0])).path)
    assert source.base == family
    written = save_adapter(source, tmp_path / "b.safetensors", dialect, dtype)
    assert_diffusers_applies(written, source, pipeline, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
def test_a_merge_by_a_full_router(tmp_path: Path, dialect: Dialect, dtype: torch.dtype, tolerance: float) -> None:
    pair = [
        load_adapter(kohya_file(tmp_path / "a.safetensors", random_parts(tiny_shapes(), *MIXED)).path),
        load_adapter(diffusers_file(tmp_path / "b.safetensors", random_parts(tiny_shapes(), MIXED[0], seed=2)).path),
    ]
    router = random_router(pair)
    merged = replace(merge(pair, Recipe(method="routed", weights=(0.7, 0.9), calibration=router.hash), routers=[router]), base="sd1")
    assert set(merged.modules) == set(pair[0].modules) | set(pair[1].modules)
    assert_diffusers_applies(save_adapter(merged, tmp_path / "c.safetensors", dialect, dtype), merged, tolerance=tolerance)


def true_flux() -> FluxPipeline:
    """FLUX.1's transformer at its true width, one block of each sort, its weights never written to."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    return FluxPipeline(FlowMatchEulerDiscreteScheduler(), None, None, None, None, None, transformer.to_empty(device="cpu"))


@pytest.mark.parametrize("dialect", ["kohya", "comfyui"])
def test_blocks_of_flux_under_its_original_names(tmp_path: Path, dialect: Dialect) -> None:
    """diffusers knows the rows of the fused projections for the true width alone; the layers around the blocks it drops."""
    pipeline = true_flux()
    shapes = {path: s for path, s in weight_shapes({"transformer": pipeline.transformer}).items() if "_blocks." in path}
    source = load_adapter(diffusers_file(tmp_path / "a.safetensors", random_parts(shapes, lambda i: 1 + i % 2)).path)
    assert (source.base, source.base_reason) == ("flux1", "its width is 3072")
    pipeline.load_lora_weights(save_adapter(source, tmp_path / "b.safetensors", dialect, torch.float32), adapter_name="x")
    loaded = {f"transformer.{n}": m for n, m in pipeline.transformer.named_modules() if "x" in getattr(m, "lora_A", {})}
    assert set(loaded) == set(source.modules)
    for path, layer in loaded.items():
        up, down = layer.lora_B["x"].weight.detach(), layer.lora_A["x"].weight.detach()
        found = Factors(up, down, layer.scaling["x"] * len(down), source.modules[path].shape)
        assert distance(found, source.modules[path]) <= 1e-6 * source.modules[path].norm(), path


def test_diffusers_still_drops_what_is_around_the_blocks_of_flux(tmp_path: Path) -> None:
    """Its conversion of kohya's names leaves these without the part's name; when this fails, the table of formats can say more."""
    pipeline = true_flux()
    made = diffusers_file(
        tmp_path / "a.safetensors", random_parts({"transformer.x_embedder": (3072, 64), f"{SINGLE}.norm.linear": (9216, 3072)})
    )
    pipeline.load_lora_weights(save_adapter(load_adapter(made.path), tmp_path / "b.safetensors", "kohya"), adapter_name="x")
    assert [n for n, m in pipeline.transformer.named_modules() if "x" in getattr(m, "lora_A", {})] == [
        "single_transformer_blocks.0.norm.linear"
    ]


@pytest.mark.parametrize(("dialect", "part"), [("kohya", "unet."), ("diffusers", "text_encoder.")])
def test_one_part_alone(tmp_path: Path, dialect: Dialect, part: str) -> None:
    shapes = {path: shape for path, shape in tiny_shapes().items() if path.startswith(part)}
    source = load_adapter(kohya_file(tmp_path / "a.safetensors", random_parts(shapes, *MIXED)).path)
    assert_diffusers_applies(save_adapter(source, tmp_path / "b.safetensors", dialect), source)


def test_a_fitted_lycoris_adapter(tmp_path: Path) -> None:
    """LyCORIS's matrices for 1 × 1 convolutions take the base's shape first."""
    made = lycoris_file(tmp_path / "a.safetensors", LokrModule, tiny_shapes(), lora_dim=1, alpha=0.5, factor=4)
    adapter = fit_shapes(load_adapter(made.path), tiny_shapes())
    assert {path: factors.shape for path, factors in adapter.modules.items()} == tiny_shapes()
    assert_diffusers_applies(save_adapter(adapter, tmp_path / "b.safetensors", "diffusers"), adapter)


def test_diffusers_reads_the_source_file_itself_alike(tmp_path: Path) -> None:
    made = kohya_file(tmp_path / "a.safetensors", random_parts(tiny_shapes()))
    assert_diffusers_applies(made.path, load_adapter(made.path))


def test_diffusers_still_misses_mixed_alphas_of_attention_modules(tmp_path: Path) -> None:
    """Why the kohya writer gives all modules of a part one alpha; when this fails, the writer can be simpler."""
    shapes = {
        path: shape for path, shape in tiny_shapes().items() if path.startswith("unet.mid_block.attentions.0.transformer_blocks.0.attn1")
    }
    made = kohya_file(tmp_path / "a.safetensors", random_parts(shapes, 2, lambda i: (2.0, 2.0, 2.0, 8.0)[i]))
    with pytest.warns(RuntimeWarning, match="alpha_pattern keys did not match"):
        changes = fused_changes(made.path)
    wrong = [path for path, delta in made.deltas.items() if float((changes[path] - delta).norm()) > 0.1 * float(delta.norm())]
    assert wrong == ["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"]


def test_mismatches_are_listed(tmp_path: Path) -> None:
    shapes = dict(tiny_shapes())
    adapter = load_adapter(
        kohya_file(tmp_path / "a.safetensors", random_parts({"unet.conv_in": (16, 4, 3, 3), "unet.conv_out": (4, 16, 3, 3)})).path
    )
    assert shape_mismatches(adapter, shapes) == []
    shapes["unet.conv_in"] = (32, 4, 3, 3)
    del shapes["unet.conv_out"]
    assert shape_mismatches(adapter, shapes) == [
        "unet.conv_in: the adapter changes a weight of shape (16, 4, 3, 3), the base model's is (32, 4, 3, 3)",
        "unet.conv_out: not in the base model",
    ]
    with pytest.raises(
        BaseModelError, match=r"a: does not fit the base model: unet\.conv_in: .* — use the base model that it was trained on"
    ):
        fit_shapes(adapter, shapes)


def test_a_matrix_fits_a_1_by_1_convolution_but_not_a_3_by_3_one(tmp_path: Path) -> None:
    path = "unet.mid_block.attentions.0.proj_in"
    adapter = load_adapter(kohya_file(tmp_path / "a.safetensors", random_parts({path: (24, 24)})).path)
    assert fit_shapes(adapter, {path: (24, 24, 1, 1)}).modules[path].delta().shape == (24, 24, 1, 1)
    assert shape_mismatches(adapter, {path: (24, 24, 3, 3)})


def test_shapes_of_parts_that_are_unknown_are_left_out() -> None:
    pipeline = tiny_pipeline()
    assert weight_shapes({"vae": pipeline.vae}) == {}
