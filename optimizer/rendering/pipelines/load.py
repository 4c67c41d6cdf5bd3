"""Loading of a base model from a folder, a single file or the hub's local cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.adapters.families import PipelineClass
from optimizer.adapters.files.base_location import locate_base
from optimizer.errors import UsageError
from optimizer.rendering.loading import Quantize
from optimizer.rendering.pipeline_class import models_of
from optimizer.rendering.pipelines.autoencoder import load_autoencoder
from optimizer.rendering.pipelines.compatibility import check_parts
from optimizer.rendering.pipelines.folder import folder_class, load_folder
from optimizer.rendering.pipelines.single_file import checkpoint_class, checkpoint_remarks, load_checkpoint
from optimizer.text import first_sentence


def load_pipeline(
    base: str | Path,
    *,
    device: str,
    dtype: torch.dtype,
    vae: str | Path = "",
    denoiser: str | Path = "",
    base_config: str | Path = "",
    quantize: Quantize = "none",
    compute: torch.device | None = None,
) -> DiffusionPipeline:
    """Loads a pipeline, without its safety checker, which would turn images black.

    Args:
        base: diffusers folder, single file, or hub model in the local cache, as resolved by ``locate_base``.
        device: torch device for the weights.
        dtype: dtype of the weights in memory.
        vae: replacement autoencoder, as in ``load_autoencoder``; empty keeps the base's own.
        denoiser: replacement U-Net or transformer, as in ``load_denoiser``; empty keeps the base's own.
        base_config: layout of a single file, as in ``load_checkpoint``.
        quantize: quantisation format of the denoiser and T5.
        compute: device that will compute; None for ``device``.

    Raises:
        BaseModelError: the base is missing, incomplete or of an unknown family, or its parts are incompatible.
        UsageError: the device is not available, or does not support the quantisation format.
    """
    place = locate_base(base)
    check_device(device)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True, "use_safetensors": True}
    compute = compute or torch.device(device)
    if place.is_file():
        pipeline = load_checkpoint(place, options, layout=base_config, denoiser=denoiser, quantize=quantize, compute=compute)
    else:
        pipeline = load_folder(place, options, denoiser=denoiser, quantize=quantize, compute=compute)
    if vae:
        pipeline.register_modules(vae=load_autoencoder(Path(vae), pipeline, options))
    check_parts(pipeline, denoiser or base)
    for model in models_of(pipeline).values():
        model.eval()  # diffusers 0.42 leaves T5 from a single file in training mode, with dropout 0.1
    return pipeline.to(device)


def pipeline_class_at(base: str | Path, denoiser: str | Path = "", base_config: str | Path = "") -> PipelineClass:
    """Returns the pipeline class of a base before it is loaded, with its own or a replacement denoiser.

    Raises:
        BaseModelError: the base is missing or of no known family.
        UsageError: ``base_config`` is given for a folder, which contains its own configuration.
    """
    place = locate_base(base)
    if base_config and place.is_dir():
        raise UsageError("is for single files; a folder says itself how it is laid out", where="--base-config", remedy="leave it out")
    return checkpoint_class(place, base_config) if place.is_file() else folder_class(place, denoiser)


def remarks_on(base: str | Path, base_config: str | Path = "") -> list[str]:
    """Returns remarks for users about a base, one line each; raises BaseModelError if it is not a valid base."""
    place = locate_base(base)
    return checkpoint_remarks(place, base_config) if place.is_file() else []


def check_device(device: str) -> None:
    """Raises UsageError if the device is not available."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise UsageError(f"the device {device!r} cannot be used: {first_sentence(error)}", remedy="use cpu") from error
