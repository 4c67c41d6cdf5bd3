"""A fake embedder: coarse pixels in random directions, in place of a model; for running everything around it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FAKE = "fake:"
_GRID, _WIDTH = 8, 64
_GREY = 0.5


class FakeEmbedder:
    """Sees colours and coarse shapes, and nothing of what they mean.

    Attributes:
        name: ``fake:``.
    """

    name = FAKE

    def __init__(self) -> None:
        drawn = torch.randn(3 * _GRID * _GRID, _WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self._directions = drawn / _WIDTH**0.5

    def __call__(self, images: Tensor) -> Tensor:
        """Embed pictures.

        Args:
            images: uint8, (n, 3, height, width), of any size.

        Returns:
            Unit vectors, float32, (n, 64), on the CPU; the same for a picture in every batch. A picture that is grey all over has none
            and is all zeros.
        """
        pooled = F.adaptive_avg_pool2d(images.cpu().double() / 255, _GRID) - _GREY
        return F.normalize(pooled.flatten(1) @ self._directions, dim=1).float()
