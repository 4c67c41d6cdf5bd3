"""Fitting: whether the models of a pipeline were made for each other, which their configurations tell before anything is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimizer.errors import BaseModelError
from optimizer.rendering.families import family_of_pipeline


def check_parts(pipeline: Any, where: str | Path) -> None:
    """Raise BaseModelError where the denoiser takes other latents than the autoencoder decodes, or other text states than the text
    encoders give.

    Args:
        pipeline: of a known family.
        where: what to blame: the base, or another denoiser that was given.
    """
    family = family_of_pipeline(pipeline)
    parts = pipeline.components
    denoiser = parts[family.denoiser].config
    takes, has = denoiser.in_channels // (4 if family.packed else 1), parts["vae"].config.latent_channels
    if takes != has:
        remedy = "use a model that draws from text alone; those for inpainting or editing take a picture, too"
        raise BaseModelError(f"its {family.denoiser} takes {takes} channels, the latents have {has}", where=where, remedy=remedy)
    reads, given = _reads(family.denoiser, denoiser), _given(family.denoiser, parts)
    if reads and given and reads != given:
        remedy = f"use a {family.denoiser} and text encoders of one model of {family.name}"
        problem = f"its {family.denoiser} reads text states {reads} numbers wide, the text encoders give {given}"
        raise BaseModelError(problem, where=where, remedy=remedy)


def _reads(part: str, config: Any) -> int | None:
    """How wide the text states are that a denoiser reads; None where that is not one number."""
    width = config.joint_attention_dim if part == "transformer" else config.cross_attention_dim
    return width if isinstance(width, int) and not config.get("encoder_hid_dim") else None


def _given(part: str, parts: Any) -> int | None:
    """How wide the states are that the text encoders give: T5's to a transformer, None where it goes without; CLIP's side by side."""
    encoders = [parts.get(f"text_encoder{end}") for end in ("", "_2", "_3")]
    if part == "transformer":
        return next((int(e.config.d_model) for e in encoders if e is not None and hasattr(e.config, "d_model")), None)
    return sum(int(e.config.hidden_size) for e in encoders if e is not None)
