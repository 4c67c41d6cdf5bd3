"""Several embedders as one: what one of them hardly sees, another one may."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from objectives.any_embedder import AnyEmbedder


class EmbedderEnsemble:
    """Embedders side by side, with equal weights: their unit vectors are concatenated and scaled to length 1.

    Squared distances are then the mean of the embedders' squared distances, and so is every inner product that shares are made of.

    Args:
        parts: embedders, two or more.

    Attributes:
        name: names of the embedders, separated by commas.

    Example:
        >>> from objectives import FakeEmbedder
        >>> pictures = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
        >>> both = EmbedderEnsemble([FakeEmbedder(), FakeEmbedder()])
        >>> both.name, both(pictures).shape[1] == 2 * FakeEmbedder()(pictures).shape[1]
        ('fake:,fake:', True)
    """

    def __init__(self, parts: Sequence[AnyEmbedder]) -> None:
        self._parts = tuple(parts)
        self.name = ",".join(part.name for part in parts)

    def __call__(self, images: Tensor, /) -> Tensor:
        """Returns unit vectors, float32 (n, Σ d), on the CPU, of pictures, uint8 (n, 3, height, width)."""
        return torch.cat([part(images) for part in self._parts], dim=1) / math.sqrt(len(self._parts))
