"""The interface that scoring requires of an embedder."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class AnyEmbedder(Protocol):
    """Callable that converts pictures, uint8 (n, 3, height, width), to unit vectors, float32 (n, d), on the CPU.

    Attributes:
        name: name or path that the embedder was loaded from, for records.
    """

    name: str

    def __call__(self, images: Tensor, /) -> Tensor:
        """Embeds pictures."""
