"""Writes a safetensors file tensor by tensor: first the header, since all sizes are known, then the values."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from optimizer.adapters.files.dtypes import TORCH_DTYPES

Shapes = Mapping[str, tuple[tuple[int, ...], str]]
"""Key → shape and safetensors dtype, in the order of the file."""


def write_streamed(path: Path, shapes: Shapes, tensors: Iterator[Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file durably and deterministically, with one tensor in memory at a time.

    Args:
        path: path of the file. It has a temporary name until it is complete, and is removed if an exception ends the writing.
        shapes: key → shape and dtype of every tensor.
        tensors: tensors, in the order of ``shapes``.
        metadata: metadata strings; an empty mapping writes none, None writes ``{"format": "pt"}``.
    """
    text = _header(shapes, {"format": "pt"} if metadata is None else metadata)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for tensor, (_, kind) in zip(tensors, shapes.values(), strict=True):
                file.write(tensor.to("cpu", TORCH_DTYPES[kind]).contiguous().flatten().view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _header(shapes: Shapes, metadata: Mapping[str, str]) -> bytes:
    """Returns the JSON header in the format of the safetensors library, so that rewriting a file gives identical bytes."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, (shape, kind) in shapes.items():
        size = math.prod(shape) * TORCH_DTYPES[kind].itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)
