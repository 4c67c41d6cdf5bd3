"""The safetensors container: its header is checked before a byte of a tensor is read; written bytes depend on content alone.

Format (huggingface/safetensors, README): eight bytes with the header's length, little endian; a JSON object that gives every
tensor's dtype, shape and place; the tensors' bytes without gap or overlap.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from optimizer.errors import AdapterError

_PICKLES = {".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"}
_LONGEST_HEADER = 100_000_000
_EXPORT_AGAIN = "download or export the file again as safetensors"


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its tensors are read.

    Attributes:
        path: the file.
        shapes: tensor name → shape, in the file's order.
        dtypes: every dtype that a tensor has, as safetensors spells it (``F16``, ``BF16``, ``F32``, …).
        metadata: the file's own strings (untrusted).
        raw: the header's bytes with the eight length bytes.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: frozenset[str]
    metadata: Mapping[str, str]
    raw: bytes


def read_header(path: str | Path) -> Header:
    """Read and check the header of a safetensors file; anything else is an AdapterError that names the file."""
    path = Path(path)
    size = _size(path)
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length < 2 or length > _LONGEST_HEADER:
                raise AdapterError("not a safetensors file", file=path, remedy=_EXPORT_AGAIN)
            if 8 + length > size:
                raise AdapterError(
                    f"not a safetensors file, or cut off: {size} bytes, the header alone needs {8 + length}",
                    file=path,
                    remedy=_EXPORT_AGAIN,
                )
            raw = prefix + file.read(length)
    except OSError as error:
        raise AdapterError(f"cannot be read: {error.strerror}", file=path, remedy="check the file's permissions and the disk") from error
    entries = _entries(raw[8:], path)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterError("the header's metadata is not a table of strings", file=path, remedy=_EXPORT_AGAIN)
    shapes = _shapes(entries, size - len(raw), path)
    return Header(path, shapes, frozenset(entry["dtype"] for entry in entries.values()), metadata, raw)


def read_tensors(header: Header) -> tuple[dict[str, Tensor], str]:
    """All tensors of the file that the header belongs to, and the hex SHA-256 digest of the file's bytes."""
    try:
        data = header.path.read_bytes()
        if not data.startswith(header.raw):
            raise AdapterError("changed while it was being read", file=header.path, remedy="run again when the file is complete")
        return load(data), hashlib.sha256(data).hexdigest()
    except (OSError, SafetensorError, ValueError) as error:
        raise AdapterError(f"cannot be read: {error}", file=header.path, remedy=_EXPORT_AGAIN) from error


def serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The tensors as a safetensors file whose bytes depend on names, values and metadata alone.

    ``safetensors.save`` writes the metadata in an order that changes from process to process, hence the sorted header.
    """
    data = save({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)})
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    table = {"__metadata__": dict(sorted(metadata.items()))} | {name: entries[name] for name in sorted(tensors)}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def write_atomically(data: bytes, path: Path) -> None:
    """Put the bytes under ``path`` so that a reader sees the old file or the whole new one, also after a power cut."""
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise AdapterError(problem, file=path, remedy="check that the folder exists, is writable and has room") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows keeps a rename without it and cannot open folders
        return
    handle = os.open(folder, os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    if path.suffix.lower() in _PICKLES:
        raise AdapterError(
            f"{path.suffix} files hold pickled code, which could do anything when it is loaded; only safetensors is read",
            file=path,
            remedy="convert it to .safetensors with a tool that you trust, or get the .safetensors version",
        )
    if path.is_dir():
        raise AdapterError("is a folder", file=path, remedy="name the .safetensors file inside it")
    if not path.exists():
        raise AdapterError("does not exist", file=path, remedy="check the path")
    if not path.is_file():
        raise AdapterError("is not a regular file", file=path, remedy="name a .safetensors file")
    size = path.stat().st_size
    if size == 0:
        raise AdapterError("is empty", file=path, remedy=_EXPORT_AGAIN)
    return size


def _entries(text: bytes, path: Path) -> dict[str, Any]:
    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise ValueError("a name occurs twice")
        return table

    try:
        entries = json.loads(text, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"not a safetensors file: its header cannot be read ({error})", file=path, remedy=_EXPORT_AGAIN) from error
    if not isinstance(entries, dict):
        raise AdapterError("not a safetensors file: its header is not a table", file=path, remedy=_EXPORT_AGAIN)
    return entries


def _shapes(entries: Mapping[str, Any], room: int, path: Path) -> dict[str, tuple[int, ...]]:
    shapes, end = {}, 0
    for name, entry in entries.items():
        try:
            shapes[name] = tuple(int(n) for n in entry["shape"])
            start, stop = (int(n) for n in entry["data_offsets"])
            whole = 0 <= start <= stop and all(n >= 0 for n in shapes[name]) and isinstance(entry["dtype"], str)
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise AdapterError("the header's entry is malformed", file=path, key=name, remedy=_EXPORT_AGAIN)
        end = max(end, stop)
    if end != room:
        raise AdapterError(
            f"cut off or damaged: the header asks for {end} bytes of tensors, the file holds {room}", file=path, remedy=_EXPORT_AGAIN
        )
    if not shapes:
        raise AdapterError("holds no tensor", file=path, remedy="name the file that holds the LoRA's weights")
    return shapes
