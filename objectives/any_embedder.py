"""What scoring needs of an embedder, and the one place where a name is turned into one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor

from objectives.errors import EmbedderError
from objectives.fake import FAKE, FakeEmbedder


class AnyEmbedder(Protocol):
    """What turns pictures, uint8 (n, 3, height, width), into unit vectors, float32 (n, d), on the CPU.

    Attributes:
        name: what it was loaded from, for records.
    """

    name: str

    def __call__(self, images: Tensor, /) -> Tensor:
        """Embed pictures."""


def load_embedder(spec: str | Path, *, device: str = "cpu") -> AnyEmbedder:
    """Load an embedder.

    Args:
        spec: what ``objectives.embedder.load_open_clip`` reads, or ``fake:``.
        device: torch device; the fake embedder stays on the CPU.

    Raises:
        EmbedderError: not found, or not loadable without a download that is not possible here.
    """
    if not str(spec).startswith(FAKE):
        # Only here: open_clip takes seconds to import, which the fake does not need.
        from objectives.embedder import load_open_clip

        return load_open_clip(spec, device=device)
    if str(spec) != FAKE:
        raise EmbedderError(f"{spec}: the fake embedder has no settings — write {FAKE}")
    return FakeEmbedder()
