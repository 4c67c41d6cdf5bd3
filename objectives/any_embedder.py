"""The interface that scoring requires of an embedder, and the function that loads an embedder by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor

from objectives.errors import EmbedderError
from objectives.fake import FAKE, FakeEmbedder


class AnyEmbedder(Protocol):
    """Callable that converts pictures, uint8 (n, 3, height, width), to unit vectors, float32 (n, d), on the CPU.

    Attributes:
        name: name or path that the embedder was loaded from, for records.
    """

    name: str

    def __call__(self, images: Tensor, /) -> Tensor:
        """Embeds pictures."""


def load_embedder(spec: str | Path, *, device: str = "cpu") -> AnyEmbedder:
    """Loads an embedder.

    Args:
        spec: specification for ``objectives.embedder.load_open_clip``, or ``fake:``.
        device: torch device; the fake embedder always runs on the CPU.

    Raises:
        EmbedderError: the model is not found, or needs a download that is not possible.

    Example:
        >>> load_embedder("fake:").name
        'fake:'
    """
    if not str(spec).startswith(FAKE):
        # Imported here because open_clip takes seconds to import and the fake embedder does not need it.
        from objectives.embedder import load_open_clip

        return load_open_clip(spec, device=device)
    if str(spec) != FAKE:
        raise EmbedderError(f"{spec}: the fake embedder has no settings — write {FAKE}")
    return FakeEmbedder()
