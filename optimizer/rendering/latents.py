"""Latents: what shape a pipeline draws in."""

from __future__ import annotations

from typing import Any

from optimizer.errors import UsageError
from optimizer.rendering.families import family_of_pipeline


def latent_shape(pipeline: Any, resolution: int | None) -> tuple[int, int, int]:
    """(channels, height, width) of one latent.

    Args:
        pipeline: of a known family.
        resolution: width and height of the picture in pixels; None takes the base's own.

    Raises:
        UsageError: the base cannot draw in this resolution.
    """
    family = family_of_pipeline(pipeline)
    config, factor = pipeline.components[family.denoiser].config, pipeline.vae_scale_factor
    channels = config.in_channels // 4 if family.packed else config.in_channels
    if resolution is None:
        side = pipeline.default_sample_size if family.packed else config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return channels, height, width
    multiple = max(8, factor * (1 if family.denoiser == "unet" else 2))
    if resolution % multiple:
        remedy = f"use {max(1, round(resolution / multiple)) * multiple}"
        raise UsageError(f"the resolution {resolution} is not a multiple of {multiple}", remedy=remedy)
    return channels, resolution // factor, resolution // factor
