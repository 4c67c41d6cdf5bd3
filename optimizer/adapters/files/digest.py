"""Sampled digests, which distinguish large files without reading them completely."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

_WHOLE = 1 << 21  # bytes; files up to this size are read completely
_SAMPLE = 1 << 12
_SAMPLES = 256  # number of samples for a large file that is not a safetensors file


class Digest(Protocol):
    """Interface of a ``hashlib`` hash object."""

    def update(self, data: bytes, /) -> None:
        """Updates the digest with the bytes."""


def digest_file(digest: Digest, file: Path) -> None:
    """Updates a digest with a file's size and with its content or samples of it.

    A file of up to 2 MiB is read completely. A larger safetensors file contributes its header and 4 KiB from the middle of every tensor,
    which detects training of a few layers. Any other larger file contributes 256 samples of 4 KiB. A change of a few rows of a large
    tensor may not be detected.
    """
    size = file.stat().st_size
    digest.update(f"{size}\0".encode())
    with file.open("rb") as opened:
        if size <= _WHOLE:
            digest.update(opened.read())
            return
        for start, count in _spots(opened, size):
            opened.seek(start)
            digest.update(opened.read(count))


def _spots(opened: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Yields (first byte, number of bytes) of every sample."""
    length = int.from_bytes(opened.read(8), "little")
    tensors = _tensors(opened.read(length)) if length <= size - 8 else []
    if tensors:
        yield 0, 8 + length
        yield from ((8 + length + max(start, (start + end - _SAMPLE) // 2), min(_SAMPLE, end - start)) for start, end in tensors)
        return
    step = (size - _SAMPLE) / (_SAMPLES - 1)
    yield from ((int(i * step), _SAMPLE) for i in range(_SAMPLES))


def _tensors(header: bytes) -> list[tuple[int, int]]:
    """Returns the sorted byte ranges of the tensors relative to the end of the header; empty if it is not a valid header."""
    try:
        found = json.loads(header)
        places = [tuple(map(int, entry["data_offsets"])) for name, entry in found.items() if name != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return []
    return sorted((start, end) for start, end in places if 0 <= start <= end)
