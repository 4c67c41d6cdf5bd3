"""Latent shape of a pipeline."""

from __future__ import annotations

from typing import Any

from optimizer.errors import UsageError
from optimizer.rendering.pipeline_class import pipeline_class_of


def latent_shape(pipeline: Any, resolution: int | None) -> tuple[int, int, int]:
    """Returns (channels, height, width) of one latent.

    Args:
        pipeline: pipeline of a known record.
        resolution: width and height of the image in pixels; None uses the base's default.

    Raises:
        UsageError: the base does not support the resolution.
    """
    record = pipeline_class_of(pipeline)
    config, factor = pipeline.components[record.denoiser].config, pipeline.vae_scale_factor
    channels = config.in_channels // 4 if record.packed else config.in_channels
    if resolution is None:
        side = pipeline.default_sample_size if record.packed else config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return channels, height, width
    multiple = max(8, factor * (1 if record.denoiser == "unet" else 2))
    if resolution % multiple:
        remedy = f"use {max(1, round(resolution / multiple)) * multiple}"
        raise UsageError(f"the resolution {resolution} is not a multiple of {multiple}", remedy=remedy)
    return channels, resolution // factor, resolution // factor
