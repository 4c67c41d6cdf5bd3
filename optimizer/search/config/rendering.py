"""Rendering: how pictures are drawn."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

from pydantic import Field

from optimizer.rendering.settings import RenderSettings
from optimizer.search.config.option import Option, Panel, Settings


class Rendering(Settings):
    """Settings of the renderer, which are those of ``RenderSettings``."""

    resolution: Annotated[int | None, Option(30, Panel.PICTURES, "PIXELS")] = Field(
        default=None,
        ge=8,
        multiple_of=8,
        description="Width and height of the pictures, a multiple of 8. By default that of the base model.",
    )
    steps: Annotated[int | None, Option(21, Panel.PICTURES, "N")] = Field(
        default=None, ge=1, description="Number of denoising steps. By default that of the base model."
    )
    guidance: Annotated[float | None, Option(22, Panel.PICTURES, "SCALE")] = Field(
        default=None, ge=0, description="Classifier-free guidance scale; 1 or less turns it off. By default that of the base model."
    )
    negative: Annotated[str, Option(23, Panel.PICTURES, "TEXT")] = Field(default="", description="Negative prompt.")
    scheduler: Annotated[str, Option(24, Panel.PICTURES, "NAME")] = Field(
        default="",
        description="ddim, euler, euler_a, dpmpp_2m_karras, unipc or another of docs/bases.md. By default that of the base model.",
    )
    clip_skip: Annotated[int | None, Option(25, Panel.PICTURES, "N")] = Field(
        default=None,
        ge=1,
        description="CLIP layer that text is read from, where 1 is the last. By default that of the base model.",
    )
    batch: Annotated[int, Option(31, Panel.MEMORY, "N", identity=False, per_machine=True)] = Field(
        default=16, ge=1, description="Pictures per forward pass. A smaller number needs less memory."
    )

    def render_settings(self) -> RenderSettings:
        """Returns the settings in the form that renderers take."""
        return RenderSettings(**{field.name: getattr(self, field.name) for field in fields(RenderSettings)})
