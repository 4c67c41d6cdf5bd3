"""Another autoencoder than the base's own: a folder, or a single file as A1111 keeps them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.errors import BaseModelError
from optimizer.rendering.files import COMPLETE, first_sentence, variant_of


def load_autoencoder(place: Path, pipeline: DiffusionPipeline, options: dict[str, Any]) -> torch.nn.Module:
    """Another autoencoder for a pipeline.

    Args:
        place: its folder, that of a pipeline which has it, or a safetensors file, which is laid out as the pipeline's own.
        pipeline: whose latents it decodes.
        options: of ``from_pretrained``; ``dtype`` is that of the weights.

    Raises:
        BaseModelError: it cannot be read, or has latents of another shape.
    """
    own: Any = pipeline.components["vae"]
    if not place.is_file() and not place.is_dir():
        raise BaseModelError("does not exist", where=place, remedy="give the folder or file of an autoencoder to --vae")
    try:
        found = _of_file(place, own, options) if place.is_file() else _of_folder(place, options)
    except BaseModelError:
        raise
    except Exception as error:  # whatever the parsers of configurations and weights raise on a damaged file
        raise BaseModelError(f"the autoencoder cannot be loaded: {first_sentence(error)}", where=place, remedy=COMPLETE) from error
    if _latents(found) != _latents(own):
        problem = f"its latents are of another shape than the base's ({_latents(found)} instead of {_latents(own)})"
        raise BaseModelError(problem, where=place, remedy="give one of the base's family to --vae")
    vae: torch.nn.Module = found
    return vae


def _of_folder(folder: Path, options: dict[str, Any]) -> Any:
    place = folder / "vae" if (folder / "model_index.json").is_file() else folder
    if not (place / "config.json").is_file():
        raise BaseModelError("no autoencoder here (config.json is missing)", where=place, remedy="give the folder of one to --vae")
    return diffusers.AutoencoderKL.from_pretrained(place, variant=variant_of(place), **options)


def _of_file(file: Path, own: Any, options: dict[str, Any]) -> Any:
    with TemporaryDirectory() as folder:
        own.save_config(folder)
        return diffusers.AutoencoderKL.from_single_file(str(file), config=folder, local_files_only=True, torch_dtype=options["dtype"])


def _latents(vae: Any) -> str:
    """Channels of a latent, and how many pixels one of its entries is wide."""
    return f"{vae.config.latent_channels} channels at 1/{2 ** (len(vae.config.block_out_channels) - 1)}"
