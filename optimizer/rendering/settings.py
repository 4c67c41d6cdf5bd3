"""How pictures are made, whoever makes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RenderSettings:
    """How pictures are made.

    Attributes:
        steps: denoising steps.
        guidance: classifier-free guidance scale; 1 or less turns it off.
        negative: negative prompt.
        batch: pictures per forward pass.
        resolution: width and height in pixels, a multiple of 8; None takes the base's own.
    """

    steps: int = 20
    guidance: float = 7.0
    negative: str = ""
    batch: int = 8
    resolution: int | None = None
