"""Render settings, common to all renderers."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RenderSettings:
    """Settings for rendering images.

    Attributes:
        steps: number of denoising steps; None uses the base's default.
        guidance: classifier-free guidance scale, 1 or less turns it off; None uses the base's default.
        negative: negative prompt.
        batch: images per forward pass.
        scheduler: name in ``SCHEDULERS``; empty keeps the base's scheduler.
        clip_skip: CLIP layer whose states are used, counted from the last, which is 1, as in A1111; None uses the base's default.
        resolution: width and height in pixels, a multiple of 8; None uses the base's default.
    """

    steps: int | None = None
    guidance: float | None = None
    negative: str = ""
    batch: int = 8
    scheduler: str = ""
    clip_skip: int | None = None
    resolution: int | None = None

    def completed(self, steps: int, guidance: float) -> RenderSettings:
        """Returns a copy in which steps and guidance that are None have the given values."""
        return replace(
            self, steps=steps if self.steps is None else self.steps, guidance=guidance if self.guidance is None else self.guidance
        )
