"""Telling large files apart without reading gigabytes: samples of every tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

_WHOLE = 1 << 21  # bytes up to which a file is read as it is
_SAMPLE = 1 << 12
_SAMPLES = 256  # of a large file that is none of safetensors'


class Digest(Protocol):
    """What ``hashlib`` makes."""

    def update(self, data: bytes, /) -> None:
        """Take these bytes in."""


def digest_file(digest: Digest, file: Path) -> None:
    """Feed a file's size and content to a digest: all of it up to 2 MiB; of a greater safetensors file the header and 4 KiB from the
    middle of every tensor, so that a training of a few layers shows; of any other 256 such samples.

    What changes a few rows of a large tensor alone may go unseen.
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
    """(first byte, number of bytes) of everything that is looked at."""
    length = int.from_bytes(opened.read(8), "little")
    tensors = _tensors(opened.read(length)) if length <= size - 8 else []
    if tensors:
        yield 0, 8 + length
        yield from ((8 + length + max(start, (start + end - _SAMPLE) // 2), min(_SAMPLE, end - start)) for start, end in tensors)
        return
    step = (size - _SAMPLE) / (_SAMPLES - 1)
    yield from ((int(i * step), _SAMPLE) for i in range(_SAMPLES))


def _tensors(header: bytes) -> list[tuple[int, int]]:
    """Where the tensors lie behind the header, in their order; none where it is no header."""
    try:
        found = json.loads(header)
        places = [tuple(map(int, entry["data_offsets"])) for name, entry in found.items() if name != "__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return []
    return sorted((start, end) for start, end in places if 0 <= start <= end)
