"""How pictures are made, whoever makes them."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RenderSettings:
    """How pictures are made.

    Attributes:
        steps: denoising steps; None takes what is usual for the base.
        guidance: classifier-free guidance scale, 1 or less turns it off; None takes what is usual for the base.
        negative: negative prompt.
        batch: pictures per forward pass.
        scheduler: one of ``SCHEDULERS``; empty takes the base's own.
        clip_skip: the layer of CLIP that is read, counted from the last, which is 1, as A1111 counts; None takes the base's own.
        resolution: width and height in pixels, a multiple of 8; None takes the base's own.
    """

    steps: int | None = None
    guidance: float | None = None
    negative: str = ""
    batch: int = 8
    scheduler: str = ""
    clip_skip: int | None = None
    resolution: int | None = None

    def completed(self, steps: int, guidance: float) -> RenderSettings:
        """The same with these values where none were given."""
        return replace(
            self, steps=steps if self.steps is None else self.steps, guidance=guidance if self.guidance is None else self.guidance
        )
