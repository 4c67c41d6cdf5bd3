"""Writing a safetensors file tensor by tensor: the header first, for all sizes are known, then the numbers as they come."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32}
"""Number formats by safetensors' names."""


def write_streamed(path: Path, shapes: Mapping[str, tuple[tuple[int, ...], str]], tensors: Iterator[Tensor]) -> None:
    """Write a file whose bytes depend on names and numbers alone, durably, holding one tensor at a time.

    Args:
        path: of the file; until it is whole it has another name.
        shapes: tensor name → its shape, and its number format as safetensors spells it; in the order of the file.
        tensors: the tensors in that order.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (shape, kind) in shapes.items():
        size = math.prod(shape) * DTYPES[kind].itemsize
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor, (_, kind) in zip(tensors, shapes.values(), strict=True):
            file.write(tensor.to(DTYPES[kind]).contiguous().flatten().view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
