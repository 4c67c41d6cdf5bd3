"""From a base to a renderer: number format, loading, placing, and what makes it smaller or faster."""

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
from optimizer.rendering.memory.placement import Demand, Residence, resident
from optimizer.rendering.pipelines.load import check_device, family_at, load_pipeline, remarks_on
from optimizer.rendering.pipelines.quantisation import quantised_parts
from optimizer.rendering.renderer import Renderer
from optimizer.rendering.settings import RenderSettings


def assemble(base: str, settings: RenderSettings, loading: Loading, note: Note, adapters: Sequence[Adapter] = ()) -> Renderer:
    """Load a base and place it as its size and the free memory ask for.

    Args:
        base: what ``load_pipeline`` takes.
        settings: of the pictures.
        loading: what was asked for.
        note: is told of every step that is taken later because memory ran out.
        adapters: what will be drawn with it; for another family, they are refused before gigabytes are read.

    Raises:
        BaseModelError: the base cannot be loaded, or is not of the adapters' family.
        UsageError: the device is not there, or what was asked for does not go together.
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
    residence = resident(demand(pipeline, settings.resolution, dtype, settings.batch), free, loading, device, dtype)
    for remark in (*remarks_on(base, loading.base_config), *_on_drawing(base, settings, pipeline)):
        note(remark)
    _slimmed(pipeline, loading, residence)
    if residence.offload == "none":
        pipeline.to(device)
    if residence.compiled:
        _compile(pipeline, loading)
    return Renderer(pipeline, settings, residence=residence, note=note)


def _on_drawing(base: str, settings: RenderSettings, pipeline: DiffusionPipeline) -> list[str]:
    """What users should know of how will be drawn, where it does not suit what the base calls itself, or what was asked for."""
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
    """The number format of a base's weights: what was asked for, else two bytes on a GPU, and four on a CPU where they fit twice.

    Args:
        loading: what was asked for.
        family: of the base; activations of later ones overflow fp16.
        device: computes.
        free: bytes that are free there.
        numbers: how many the base's files hold; 0 where that is not known.
    """
    if loading.precision != "auto":
        return DTYPES[loading.precision]
    if device.type == "cuda":
        plain = family.half == torch.float16 or not torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.float16 if plain else torch.bfloat16
    return torch.float32 if 2 * numbers * torch.float32.itemsize <= free else torch.bfloat16


def demand(pipeline: DiffusionPipeline, resolution: int | None, dtype: torch.dtype, batch: int = 1) -> Demand:
    """What a loaded pipeline wants of memory for so many pictures at a time."""
    _, height, width = latent_shape(pipeline, resolution)
    factor: int = pipeline.vae_scale_factor
    sizes = {part: sum(p.numel() * p.element_size() for p in model.parameters()) for part, model in models_of(pipeline).items()}
    vae: Any = pipeline.components["vae"]
    upcast = bool(vae.config.get("force_upcast")) and dtype == torch.float16 and type(pipeline).__name__ == "StableDiffusionXLPipeline"
    pixels, quantised = height * width * factor**2, bool(quantised_parts(pipeline))
    return Demand(sizes, family_of_pipeline(pipeline).denoiser, pixels, dtype.itemsize, quantised, batch, upcast)


def _device(asked: str) -> str:
    return asked if asked != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _slimmed(pipeline: Any, loading: Loading, residence: Residence) -> None:
    """What makes a picture need less memory, as far as it was asked for or planned."""
    if residence.sliced:
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
    """Compile the denoiser where it is, so that its components stay the same objects."""
    denoiser = pipeline.components[family_of_pipeline(pipeline).denoiser]
    denoiser.compile(dynamic=False, mode="reduce-overhead" if loading.cuda_graphs else None)
