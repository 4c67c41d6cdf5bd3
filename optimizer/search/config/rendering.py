"""Rendering: how pictures are drawn."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

from pydantic import Field

from optimizer.rendering.settings import RenderSettings
from optimizer.search.config.option import Option, Panel, Settings


class Rendering(Settings):
    """Settings of the renderer, which are those of ``RenderSettings``."""

    resolution: Annotated[int | None, Option(30, Panel.PICTURES)] = Field(
        default=None, ge=8, multiple_of=8, description="Width and height in pixels; the base's own where not given."
    )
    steps: Annotated[int | None, Option(21, Panel.PICTURES)] = Field(default=None, ge=1, description="Denoising steps.")
    guidance: Annotated[float | None, Option(22, Panel.PICTURES)] = Field(default=None, ge=0, description="Classifier-free guidance scale.")
    negative: Annotated[str, Option(23, Panel.PICTURES)] = Field(default="", description="Negative prompt.")
    scheduler: Annotated[str, Option(24, Panel.PICTURES)] = Field(
        default="", description="ddim, euler, euler_a, dpmpp_2m_karras, unipc, …; the base's own where not given."
    )
    clip_skip: Annotated[int | None, Option(25, Panel.PICTURES)] = Field(
        default=None, ge=1, description="Layer of CLIP that is read, counted from the last, which is 1."
    )
    batch: Annotated[int, Option(31, Panel.MEMORY, identity=False, per_machine=True)] = Field(
        default=16, ge=1, description="Pictures per forward pass."
    )

    def render_settings(self) -> RenderSettings:
        """Returns the settings in the form that renderers take."""
        return RenderSettings(**{field.name: getattr(self, field.name) for field in fields(RenderSettings)})
