"""Writing a safetensors file tensor by tensor: the header first, for all sizes are known, then the numbers as they come."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Number formats by safetensors' names."""

STORED = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}
"""safetensors' names of number formats, by those of recipes and options."""

Shapes = Mapping[str, tuple[tuple[int, ...], str]]
"""Tensor name → its shape, and its number format as safetensors spells it, in the order of the file."""


def write_streamed(path: Path, shapes: Shapes, tensors: Iterator[Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a file whose bytes depend on names and numbers alone, durably, holding one tensor at a time.

    Args:
        path: of the file; until it is whole it has another name.
        shapes: what will be in it.
        tensors: the tensors in that order.
        metadata: what the header says of the file; none where it is empty, and that its tensors are torch's where it is not given.
    """
    text = _header(shapes, {"format": "pt"} if metadata is None else metadata)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor, (_, kind) in zip(tensors, shapes.values(), strict=True):
            file.write(tensor.to("cpu", DTYPES[kind]).contiguous().flatten().view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _header(shapes: Shapes, metadata: Mapping[str, str]) -> bytes:
    """As safetensors itself writes it, so that a file which is written again is the same."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, (shape, kind) in shapes.items():
        size = math.prod(shape) * DTYPES[kind].itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)
