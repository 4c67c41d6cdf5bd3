"""Digest: the hash by which a recipe identifies a source."""

from __future__ import annotations

import hashlib

from torch import Tensor

from optimizer.adapters.adapter import Adapter


def digest(adapter: Adapter) -> str:
    """Returns the SHA-256 of the adapter's file, 64 hex digits, or of its modules' content if it was not read from a file."""
    if adapter.sha256:
        return adapter.sha256
    content = hashlib.sha256()
    for path in sorted(adapter.modules):
        factors = adapter.modules[path]
        content.update(f"{path}\n{factors.shape}\n{factors.alpha!r}\n{factors.rank}\n".encode())
        content.update(_bytes(factors.up))
        content.update(_bytes(factors.down))
    return content.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().float().cpu().contiguous().numpy().tobytes()
