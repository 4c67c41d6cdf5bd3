"""Tiny decoders: autoencoders of about a hundredth of the size, such as TAESD, for faster images in a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.adapters.files.variants import variant_of
from optimizer.errors import BaseModelError
from optimizer.rendering.pipelines.model_files import check_class, check_loaded
from optimizer.text import first_sentence


def load_decoder(folder: Path, pipeline: DiffusionPipeline, device: torch.device) -> torch.nn.Module:
    """Returns a tiny autoencoder for the latents of a pipeline.

    Args:
        folder: folder of an ``AutoencoderTiny`` (Bohan 2023, TAESD, and its variants for SDXL, SD 3 and FLUX.1).
        pipeline: pipeline whose latents it decodes.
        device: device on which it decodes.

    Raises:
        BaseModelError: the model is not a tiny autoencoder, cannot be loaded, or is for latents of another shape.
    """
    if not (folder / "config.json").is_file():
        remedy = "give the folder of an AutoencoderTiny to --decoder"
        raise BaseModelError("no tiny decoder here (config.json is missing)", where=folder, remedy=remedy)
    check_class(folder, "AutoencoderTiny", "give the folder of an AutoencoderTiny to --decoder; another full autoencoder is for --vae")
    own: Any = pipeline.components["vae"]
    try:
        options: dict[str, Any] = {"dtype": own.dtype, "local_files_only": True, "use_safetensors": True}
        found: Any = diffusers.AutoencoderTiny.from_pretrained(folder, variant=variant_of(folder), **options)
    except Exception as error:  # parsers of configurations and weights raise any exception on a damaged file
        problem = f"the tiny decoder cannot be loaded: {first_sentence(error)}"
        raise BaseModelError(problem, where=folder, remedy="fetch the whole folder again") from error
    check_loaded(found, folder)
    has = (found.config.latent_channels, 2 ** (len(found.config.decoder_block_out_channels) - 1))
    wants = (own.config.latent_channels, 2 ** (len(own.config.block_out_channels) - 1))
    if has != wants:
        problem = f"it decodes {has[0]} channels at 1/{has[1]}, the base's latents have {wants[0]} at 1/{wants[1]}"
        raise BaseModelError(problem, where=folder, remedy="give one of the base's family to --decoder")
    decoder: torch.nn.Module = found.eval().to(device)
    return decoder
