"""Loading of a replacement autoencoder from a folder, or from a single file in A1111's layout."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.adapters.files.variants import variant_of
from optimizer.checkpoints.header import CheckpointHeader, read_checkpoint_header
from optimizer.errors import BaseModelError
from optimizer.rendering.pipelines.model_files import COMPLETE, check_class, check_loaded
from optimizer.text import first_sentence

_STARTS = ("", "first_stage_model.", "vae.")


def load_autoencoder(place: Path, pipeline: DiffusionPipeline, options: dict[str, Any]) -> torch.nn.Module:
    """Returns a replacement autoencoder for a pipeline.

    Args:
        place: folder of the autoencoder or of a pipeline that contains it, or a safetensors file of the pipeline's own architecture.
        pipeline: pipeline whose latents it decodes.
        options: arguments of ``from_pretrained``; ``dtype`` is the dtype of the weights.

    Raises:
        BaseModelError: the autoencoder cannot be read, or its latents have another shape.
    """
    own: Any = pipeline.components["vae"]
    if not place.is_file() and not place.is_dir():
        raise BaseModelError("does not exist", where=place, remedy="give the folder or file of an autoencoder to --vae")
    try:
        found = _of_file(place, own, options) if place.is_file() else _of_folder(place, options)
    except BaseModelError:
        raise
    except Exception as error:  # parsers of configurations and weights raise any exception on a damaged file
        remedy = "fetch the file again, or give one of the base's family" if place.is_file() else COMPLETE
        raise BaseModelError(f"the autoencoder cannot be loaded: {first_sentence(error)}", where=place, remedy=remedy) from error
    check_loaded(found, place)
    _check_latents(_latents(found), own, place)
    vae: torch.nn.Module = found
    return vae


def _of_folder(folder: Path, options: dict[str, Any]) -> Any:
    place = folder / "vae" if (folder / "model_index.json").is_file() else folder
    if not (place / "config.json").is_file():
        raise BaseModelError("no autoencoder here (config.json is missing)", where=place, remedy="give the folder of one to --vae")
    check_class(place, "AutoencoderKL", "give the folder or file of an autoencoder to --vae; a tiny one is for --decoder")
    return diffusers.AutoencoderKL.from_pretrained(place, variant=variant_of(place), **options)


def _of_file(file: Path, own: Any, options: dict[str, Any]) -> Any:
    _check_latents(_latents_of(file, read_checkpoint_header(file)), own, file)
    with TemporaryDirectory() as folder:
        own.save_config(folder)
        return diffusers.AutoencoderKL.from_single_file(str(file), config=folder, local_files_only=True, torch_dtype=options["dtype"])


def _check_latents(found: str, own: Any, place: Path) -> None:
    if found != _latents(own):
        problem = f"its latents are of another shape than the base's ({found} instead of {_latents(own)})"
        raise BaseModelError(problem, where=place, remedy="give one of the base's family to --vae")


def _latents(vae: Any) -> str:
    """Returns a description of the latents: number of channels and spatial downsampling factor."""
    return _shape(vae.config.latent_channels, len(vae.config.block_out_channels))


def _latents_of(file: Path, header: CheckpointHeader) -> str:
    """Returns the description of the latents of a file, in the layout of the original code or of diffusers, alone or in a full model."""
    first = next((name for start in _STARTS if (name := f"{start}decoder.conv_in.weight") in header.tensors), "")
    if not first:
        what = "is a LoRA" if header.adapter else "holds no whole autoencoder"
        raise BaseModelError(f"this file {what}", where=file, remedy="give the folder or file of an autoencoder to --vae")
    level = re.compile(re.escape(first.removesuffix("conv_in.weight")) + r"up(?:_blocks)?\.(\d+)\.")
    levels = {match[1] for match in map(level.match, header.tensors) if match}
    return _shape(header.tensors[first].shape[1], len(levels))


def _shape(channels: int, levels: int) -> str:
    return f"{channels} channels at 1/{2 ** (levels - 1)}"
