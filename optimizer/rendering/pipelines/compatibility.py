"""Compatibility of the models of a pipeline, checked from their configurations before rendering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimizer.errors import BaseModelError
from optimizer.rendering.pipeline_class import pipeline_class_of


def check_parts(pipeline: Any, where: str | Path) -> None:
    """Checks that the denoiser's latents match the autoencoder, and its text states the text encoders.

    Args:
        pipeline: pipeline of a known family.
        where: location named in errors: the base, or the replacement denoiser.

    Raises:
        BaseModelError: channel counts or widths of the text states differ.
    """
    record = pipeline_class_of(pipeline)
    parts = pipeline.components
    denoiser = parts[record.denoiser].config
    takes, has = denoiser.in_channels // (4 if record.packed else 1), parts["vae"].config.latent_channels
    if takes != has:
        remedy = "use a model that draws from text alone; those for inpainting or editing take a picture, too"
        raise BaseModelError(f"its {record.denoiser} takes {takes} channels, the latents have {has}", where=where, remedy=remedy)
    reads, given = _width_read(record.denoiser, denoiser), _width_given(record.denoiser, parts)
    if reads and given and reads != given:
        remedy = f"use a {record.denoiser} and text encoders of one model of {record.title}"
        problem = f"its {record.denoiser} reads text states {reads} numbers wide, the text encoders give {given}"
        raise BaseModelError(problem, where=where, remedy=remedy)


def _width_read(part: str, config: Any) -> int | None:
    """Returns the width of the text states that a denoiser takes; None if it is not a single number."""
    width = config.joint_attention_dim if part == "transformer" else config.cross_attention_dim
    return width if isinstance(width, int) and not config.get("encoder_hid_dim") else None


def _width_given(part: str, parts: Any) -> int | None:
    """Returns the width of the text states: T5's for a transformer (None without T5), else the sum of CLIP's widths."""
    encoders = [parts.get(f"text_encoder{end}") for end in ("", "_2", "_3")]
    if part == "transformer":
        return next((int(e.config.d_model) for e in encoders if e is not None and hasattr(e.config, "d_model")), None)
    return sum(int(e.config.hidden_size) for e in encoders if e is not None)
