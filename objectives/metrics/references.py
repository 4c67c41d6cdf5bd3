"""References: the pictures of base and sources that a metric may compare a candidate's pictures with."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from objectives.objective import JOINT, Baselines


@dataclass(frozen=True)
class References:
    """Pictures of the base and of each source alone, for the prompts and the noise of the candidate.

    Attributes:
        base: pictures of the base, uint8, (n, 3, height, width), on the CPU; None if full models are merged with each other.
        alone: pictures of each source alone, in the order of the sources, like those of the base.
        asked: index of the source that each prompt asks for, or -1 for all of them.
        device: device to compute on.
    """

    base: Tensor | None
    alone: tuple[Tensor, ...]
    asked: tuple[int, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def of(cls, baselines: Baselines) -> References:
        """Returns the references that the baselines of a prompt set contain."""
        base = None if baselines.base is None else baselines.base.images.cpu()
        alone = tuple(pictures.images.cpu() for pictures in baselines.alone)
        return cls(base, alone, tuple(baselines.asked.tolist()), baselines.alone[0].device)

    @property
    def all(self) -> tuple[Tensor, ...]:
        """Pictures of the base, if there is one, and of each source alone."""
        return self.alone if self.base is None else (self.base, *self.alone)

    def targets(self, prompt: int) -> list[Tensor]:
        """Returns the pictures, each (3, height, width), that a prompt asks for: that of its source, or of each source for a joint prompt.

        Example:
            >>> black, white = (torch.full((2, 3, 8, 8), value, dtype=torch.uint8) for value in (0, 255))
            >>> references = References(None, (black, white), (1, -1))
            >>> [[int(target[0, 0, 0]) for target in references.targets(prompt)] for prompt in (0, 1)]
            [[255], [0, 255]]
        """
        asked = self.asked[prompt]
        return [images[prompt] for images in (self.alone if asked == JOINT else self.alone[asked : asked + 1])]
