"""Loading a base model: from a folder, a single file or the hub's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.adapters.files.base_location import located
from optimizer.errors import UsageError
from optimizer.rendering.families import Family, models_of
from optimizer.rendering.loading import Quantize
from optimizer.rendering.pipelines.autoencoder import load_autoencoder
from optimizer.rendering.pipelines.compatibility import check_parts
from optimizer.rendering.pipelines.folder import folder_family, load_folder
from optimizer.rendering.pipelines.single_file import checkpoint_family, checkpoint_remarks, load_checkpoint
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
    """Load a pipeline, without its safety checker, which would turn pictures black.

    Args:
        base: a diffusers folder, a single file, or a model of the hub that is in the local cache; see ``located``.
        device: torch device.
        dtype: of the weights in memory.
        vae: another autoencoder, see ``load_autoencoder``; the base's own where not given.
        denoiser: another U-Net or transformer, see ``load_denoiser``; the base's own where not given.
        base_config: of a single file, see ``load_checkpoint``.
        quantize: what the denoiser and T5 are quantised to.
        compute: where will be computed, where that is another device than the weights are loaded to.

    Raises:
        BaseModelError: nothing there, not a pipeline of a known family, not all of one, or of parts that do not go together.
        UsageError: the device is not there, or cannot compute with what is quantised so.
    """
    place = located(base)
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
        model.eval()  # diffusers 0.42 leaves T5 from a single file in training mode, where it drops a tenth of its states
    return pipeline.to(device)


def family_at(base: str | Path, denoiser: str | Path = "", base_config: str | Path = "") -> Family:
    """The family of a base, before it is loaded, with its own or another denoiser.

    Raises:
        BaseModelError: it has none.
        UsageError: a folder, which says itself how it is laid out, is given a layout.
    """
    place = located(base)
    if base_config and place.is_dir():
        raise UsageError("is for single files; a folder says itself how it is laid out", where="--base-config", remedy="leave it out")
    return checkpoint_family(place, base_config) if place.is_file() else folder_family(place, denoiser)


def remarks_on(base: str | Path, base_config: str | Path = "") -> list[str]:
    """What users should know of a base before it draws, one line each; raises BaseModelError where it is none."""
    place = located(base)
    return checkpoint_remarks(place, base_config) if place.is_file() else []


def check_device(device: str) -> None:
    """Raise UsageError unless the device is there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch that was built without CUDA
        raise UsageError(f"the device {device!r} cannot be used: {first_sentence(error)}", remedy="use cpu") from error
