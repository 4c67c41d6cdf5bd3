"""Assembly of a renderer from a base: dtype, loading, placement, and memory and speed options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.adapters import Adapter, distillation
from optimizer.adapters.files.base_location import located
from optimizer.errors import UsageError
from optimizer.merging import DTYPES
from optimizer.rendering.families import Family, check_family, check_settings, drawing_of, family_of_pipeline, models_of
from optimizer.rendering.latents import latent_shape
from optimizer.rendering.loading import Loading
from optimizer.rendering.memory.free import free_memory, stored_numbers
from optimizer.rendering.memory.oom import Note
from optimizer.rendering.memory.placement import Demand, Placement, plan_placement
from optimizer.rendering.pipelines.load import check_device, family_at, load_pipeline, remarks_on
from optimizer.rendering.pipelines.quantisation import quantised_parts
from optimizer.rendering.renderer import Renderer
from optimizer.rendering.settings import RenderSettings


def assemble(base: str, settings: RenderSettings, loading: Loading, note: Note, adapters: Sequence[Adapter] = ()) -> Renderer:
    """Loads a base and places it on devices according to its size and the free memory.

    Args:
        base: base model, as accepted by ``load_pipeline``.
        settings: render settings.
        loading: requested loading options.
        note: called with one line for each warning, and for each fallback step after running out of memory.
        adapters: adapters that will be rendered; those of another family are rejected before the weights are read.

    Raises:
        BaseModelError: the base cannot be loaded, or is not of the adapters' family.
        UsageError: the device is not available, or the options are incompatible.
    """
    device = torch.device(_device(loading.device))
    check_device(str(device))
    free = free_memory(device)
    family = family_at(base, loading.denoiser, loading.base_config)
    check_family(family, adapters)
    check_settings(family, settings)
    _check_slicing(family, loading)
    dtype = number_format(loading, family, device, free, stored_numbers(located(base)))
    others = {name: getattr(loading, name) for name in ("vae", "denoiser", "base_config", "quantize")}
    pipeline = load_pipeline(base, device="cpu", dtype=dtype, compute=device, **others)
    placement = plan_placement(demand(pipeline, settings.resolution, dtype, settings.batch), free, loading, device, dtype)
    for remark in (*remarks_on(base, loading.base_config), *_on_drawing(base, settings, pipeline)):
        note(remark)
    _slimmed(pipeline, loading, placement)
    if placement.offload == "none":
        pipeline.to(device)
    if placement.compiled:
        _compile(pipeline, loading)
    return Renderer(pipeline, settings, placement=placement, note=note)


def _on_drawing(base: str, settings: RenderSettings, pipeline: DiffusionPipeline) -> list[str]:
    """Returns warnings about steps or guidance that do not match the name of the base, or about a negative prompt without effect."""
    usual, name = drawing_of(pipeline), Path(base).name
    lines = []
    if (kind := distillation(name, {})) and usual == family_of_pipeline(pipeline).drawing and None in (settings.steps, settings.guidance):
        lines.append(
            f"warning: {name} calls itself a model of few steps ({kind}), and nothing else in it says so: "
            f"without --steps and --guidance it draws in {usual.steps} steps with guidance {usual.guidance:g}"
        )
    guidance = settings.completed(usual.steps, usual.guidance).guidance
    if settings.negative and guidance is not None and guidance <= 1:
        lines.append(f"warning: the negative prompt changes nothing with a guidance of {guidance:g}; more than 1 would use it")
    return lines


def number_format(loading: Loading, family: Family, device: torch.device, free: int, numbers: int) -> torch.dtype:
    """Returns the dtype of a base's weights: the requested one, else a 16-bit dtype on a GPU, and fp32 on a CPU if the weights fit twice.

    Args:
        loading: requested loading options.
        family: family of the base; the activations of later families overflow fp16.
        device: device that computes.
        free: free bytes on the device.
        numbers: count of numbers in the base's files; 0 if unknown.
    """
    if loading.precision != "auto":
        return DTYPES[loading.precision]
    if device.type == "cuda":
        plain = family.half == torch.float16 or not torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.float16 if plain else torch.bfloat16
    return torch.float32 if 2 * numbers * torch.float32.itemsize <= free else torch.bfloat16


def demand(pipeline: DiffusionPipeline, resolution: int | None, dtype: torch.dtype, batch: int = 1) -> Demand:
    """Returns the memory demand of a loaded pipeline for a batch of images."""
    _, height, width = latent_shape(pipeline, resolution)
    factor: int = pipeline.vae_scale_factor
    sizes = {part: sum(p.numel() * p.element_size() for p in model.parameters()) for part, model in models_of(pipeline).items()}
    vae: Any = pipeline.components["vae"]
    upcast = bool(vae.config.get("force_upcast")) and dtype == torch.float16 and type(pipeline).__name__ == "StableDiffusionXLPipeline"
    pixels, quantised = height * width * factor**2, bool(quantised_parts(pipeline))
    return Demand(sizes, family_of_pipeline(pipeline).denoiser, pixels, dtype.itemsize, quantised, batch, upcast)


def _device(asked: str) -> str:
    return asked if asked != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _slimmed(pipeline: Any, loading: Loading, placement: Placement) -> None:
    """Enables the memory-saving options that were requested or planned."""
    if placement.sliced:
        pipeline.vae.enable_slicing()
    if loading.vae_tiling:
        pipeline.vae.enable_tiling()
    if loading.attention_slicing:
        pipeline.enable_attention_slicing()


def _check_slicing(family: Family, loading: Loading) -> None:
    if loading.attention_slicing and family.denoiser != "unet":
        problem = f"{family.name} computes attention in one piece"
        raise UsageError(problem, where="--attention-slicing", remedy="leave it out; --offload saves more")


def _compile(pipeline: DiffusionPipeline, loading: Loading) -> None:
    """Compiles the denoiser in place, so that its components keep their object identity."""
    denoiser = pipeline.components[family_of_pipeline(pipeline).denoiser]
    denoiser.compile(dynamic=False, mode="reduce-overhead" if loading.cuda_graphs else None)
