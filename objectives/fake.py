"""A fake embedder: random projections of coarse pixels in place of a model, to exercise the rest of the software without one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FAKE = "fake:"
_GRID, _WIDTH = 8, 64
_GREY = 0.5


class FakeEmbedder:
    """Embedder that represents colours and coarse shapes, without semantics.

    Attributes:
        name: the constant ``fake:``.

    Example:
        >>> black = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
        >>> FakeEmbedder()(black).shape
        torch.Size([2, 64])
    """

    name = FAKE

    def __init__(self) -> None:
        drawn = torch.randn(3 * _GRID * _GRID, _WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self._directions = drawn / _WIDTH**0.5

    def __call__(self, images: Tensor) -> Tensor:
        """Embeds pictures.

        Args:
            images: pictures, uint8, (n, 3, height, width), of any size.

        Returns:
            Unit vectors, float32, (n, 64), on the CPU; a picture's vector does not depend on its batch. A uniformly grey picture yields
            a zero vector.
        """
        pooled = F.adaptive_avg_pool2d(images.cpu().double() / 255, _GRID) - _GREY
        return F.normalize(pooled.flatten(1) @ self._directions, dim=1).float()
