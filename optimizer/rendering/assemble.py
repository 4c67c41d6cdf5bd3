"""Assembly of a renderer from a base: dtype, loading, placement, and memory and speed options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.adapters import Adapter, distillation
from optimizer.adapters.families import PipelineClass
from optimizer.adapters.files.base_location import locate_base
from optimizer.adapters.files.dtypes import DTYPES
from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering.accelerator import add_accelerator, check_accelerator
from optimizer.rendering.latents import latent_shape
from optimizer.rendering.loading import Loading
from optimizer.rendering.memory.free import free_memory, stored_numbers
from optimizer.rendering.memory.oom import Note
from optimizer.rendering.memory.placement import Demand, Placement, plan_placement
from optimizer.rendering.pipeline_class import check_family, check_settings, drawing_of, models_of, pipeline_class_of
from optimizer.rendering.pipelines.load import check_device, load_pipeline, pipeline_class_at, remarks_on
from optimizer.rendering.pipelines.quantisation import quantised_parts
from optimizer.rendering.renderer import Renderer
from optimizer.rendering.settings import RenderSettings


def assemble(
    base: str,
    settings: RenderSettings,
    loading: Loading,
    note: Note,
    adapters: Sequence[Adapter] = (),
    *,
    accelerator: Adapter | None = None,
    trained_on: str = "",
) -> Renderer:
    """Loads a base and places it on devices according to its size and the free memory.

    Args:
        base: base model, as accepted by ``load_pipeline``.
        settings: render settings.
        loading: requested loading options.
        note: called with one line for each warning, and for each fallback step after running out of memory.
        adapters: adapters that will be rendered; those of another family are rejected before the weights are read.
        accelerator: LoRA that everything is drawn with; None for none.
        trained_on: model that the adapters were trained on, if another one draws; it is not loaded.

    Raises:
        BaseModelError: the base cannot be loaded, or is not of the family of the adapters, the accelerator or ``trained_on``.
        UsageError: the device is not available, or the options are incompatible.
    """
    device = torch.device(_device(loading.device))
    check_device(str(device))
    free = free_memory(device)
    if trained_on:
        _check_trained_on(trained_on, base, loading)
        loading = replace(loading, base_config=_config_of(base, loading))
    record = pipeline_class_at(base, loading.denoiser, loading.base_config)
    check_family(record, adapters)
    if accelerator:
        check_accelerator(record, accelerator)
    check_settings(record, settings)
    _check_slicing(record, loading)
    dtype = number_format(loading, record, device, free, stored_numbers(locate_base(base)))
    others = {name: getattr(loading, name) for name in ("vae", "denoiser", "base_config", "quantize")}
    pipeline = load_pipeline(base, device="cpu", dtype=dtype, compute=device, **others)
    standing = add_accelerator(pipeline, accelerator, device) if accelerator else None
    placement = plan_placement(demand(pipeline, settings.resolution, dtype, settings.batch), free, loading, device, dtype)
    for remark in (*remarks_on(base, loading.base_config), *_drawing_remarks(base, settings, pipeline)):
        note(remark)
    _save_memory(pipeline, loading, placement)
    if placement.offload == "none":
        pipeline.to(device)
    if placement.compiled:
        _compile(pipeline, loading)
    return Renderer(pipeline, settings, placement=placement, note=note, standing=standing)


def _check_trained_on(trained_on: str, base: str, loading: Loading) -> None:
    """Raises BaseModelError if the model that draws is of another family than the one that the sources were trained on."""
    wanted, found = (pipeline_class_at(place, loading.denoiser, _config_of(place, loading)) for place in (trained_on, base))
    if found != wanted:
        problem = f"is of {found.title}, the base model is of {wanted.title}"
        raise BaseModelError(problem, where=f"--eval-base {base}", remedy="name a model of the base model's family")


def _config_of(base: str, loading: Loading) -> str:
    """Returns the layout that was given for single files, for a single file; none for a folder, which has its own."""
    return loading.base_config if locate_base(base).is_file() else ""


def _drawing_remarks(base: str, settings: RenderSettings, pipeline: DiffusionPipeline) -> list[str]:
    """Returns warnings about steps or guidance that do not match the name of the base, or about a negative prompt without effect."""
    usual, name = drawing_of(pipeline), Path(base).name
    lines = []
    if (kind := distillation(name, {})) and usual == pipeline_class_of(pipeline).drawing and None in (settings.steps, settings.guidance):
        lines.append(
            f"warning: {name} calls itself a model of few steps ({kind}), and nothing else in it says so: "
            f"without --steps and --guidance it draws in {usual.steps} steps with guidance {usual.guidance:g}"
        )
    guidance = settings.completed(usual.steps, usual.guidance).guidance
    if settings.negative and guidance is not None and guidance <= 1:
        lines.append(f"warning: the negative prompt changes nothing with a guidance of {guidance:g}; more than 1 would use it")
    return lines


def number_format(loading: Loading, record: PipelineClass, device: torch.device, free: int, numbers: int) -> torch.dtype:
    """Returns the dtype of a base's weights: the requested one, else a 16-bit dtype on a GPU, and fp32 on a CPU if the weights fit twice.

    Args:
        loading: requested loading options.
        record: pipeline class of the base; the activations of later families overflow fp16.
        device: device that computes.
        free: free bytes on the device.
        numbers: count of numbers in the base's files; 0 if unknown.
    """
    if loading.precision != "auto":
        return DTYPES[loading.precision]
    if device.type == "cuda":
        plain = DTYPES[record.half] == torch.float16 or not torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.float16 if plain else torch.bfloat16
    return torch.float32 if 2 * numbers * torch.float32.itemsize <= free else torch.bfloat16


def demand(pipeline: DiffusionPipeline, resolution: int | None, dtype: torch.dtype, batch: int = 1) -> Demand:
    """Returns the memory demand of a loaded pipeline for a batch of images."""
    _, height, width = latent_shape(pipeline, resolution)
    factor: int = pipeline.vae_scale_factor
    sizes = {part: sum(p.numel() * p.element_size() for p in model.parameters()) for part, model in models_of(pipeline).items()}
    vae: Any = pipeline.components["vae"]
    record = pipeline_class_of(pipeline)
    upcast = record.upcasts and bool(vae.config.get("force_upcast")) and dtype == torch.float16
    pixels, quantised = height * width * factor**2, bool(quantised_parts(pipeline))
    return Demand(sizes, record.denoiser, pixels, dtype.itemsize, quantised, batch, upcast)


def _device(asked: str) -> str:
    return asked if asked != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _save_memory(pipeline: Any, loading: Loading, placement: Placement) -> None:
    """Enables the memory-saving options that were requested or planned."""
    if placement.sliced:
        pipeline.vae.enable_slicing()
    if loading.vae_tiling:
        pipeline.vae.enable_tiling()
    if loading.attention_slicing:
        pipeline.enable_attention_slicing()


def _check_slicing(record: PipelineClass, loading: Loading) -> None:
    if loading.attention_slicing and record.denoiser != "unet":
        problem = f"{record.title} computes attention in one piece"
        raise UsageError(problem, where="--attention-slicing", remedy="leave it out; --offload saves more")


def _compile(pipeline: DiffusionPipeline, loading: Loading) -> None:
    """Compiles the denoiser in place, so that its components keep their object identity."""
    denoiser = pipeline.components[pipeline_class_of(pipeline).denoiser]
    denoiser.compile(dynamic=False, mode="reduce-overhead" if loading.cuda_graphs else None)
