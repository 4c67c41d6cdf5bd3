"""The safetensors container: checks the header before any tensor is read, and writes deterministic bytes.

Format (huggingface/safetensors, README): eight bytes with the header's length, little endian; a JSON object that gives every
tensor's dtype, shape and byte offsets; the tensors' bytes without gap or overlap.

The file is read once into one buffer, of which all tensors are views. (The safetensors library either maps the file, so that a file
that shrinks while it is read ends the process, or copies every tensor from bytes in memory; neither yields the digest.)
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from optimizer.adapters.files.dtypes import TORCH_DTYPES
from optimizer.errors import AdapterError

_PICKLES = {".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"}
_LONGEST_HEADER = 16 << 20  # 100 times the header size of the largest adapters; parsing JSON takes about 30 times its size in memory
_LARGEST = 100_000_000  # limit of the safetensors library: a greater length means another file format
_EXPORT_AGAIN = "download or export the file again as safetensors"


@dataclass(frozen=True)
class HeaderEntry:
    """Header entry of a tensor: safetensors dtype (``F16``, ``BF16``, ``F32``, …), shape, and byte range after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """The parsed header of a safetensors file.

    Attributes:
        path: path of the file.
        entries: tensor name → header entry, in the header's order.
        metadata: metadata strings (untrusted).
        raw: bytes of the header, including the eight length bytes.
    """

    path: Path
    entries: Mapping[str, HeaderEntry]
    metadata: Mapping[str, str]
    raw: bytes


def read_header(path: str | Path) -> Header:
    """Reads and checks the header of a safetensors file.

    Raises:
        AdapterError: the file cannot be read or is not a valid safetensors file; the error names the file.
    """
    path = Path(path)
    size = _size(path)
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length < 2 or length > _LARGEST:
                raise AdapterError("not a safetensors file", file=path, remedy=_EXPORT_AGAIN)
            if length > _LONGEST_HEADER and 8 + length <= size:
                problem = f"its header takes {length / 1e6:.0f} MB, which no adapter needs"
                raise AdapterError(problem, file=path, remedy="export the file again, without the metadata that fill it")
            if 8 + length > size:
                raise AdapterError(
                    f"not a safetensors file, or cut off: {size} bytes, the header alone needs {8 + length}",
                    file=path,
                    remedy=_EXPORT_AGAIN,
                )
            raw = prefix + file.read(length)
    except OSError as error:
        raise AdapterError(f"cannot be read: {error.strerror}", file=path, remedy="check the file's permissions and the disk") from error
    table = _table(raw[8:], path)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterError("the header's metadata is not a table of strings", file=path, remedy=_EXPORT_AGAIN)
    return Header(path, _entries(table, size - len(raw), path), metadata, raw)


def read_tensors(header: Header) -> tuple[dict[str, Tensor], str]:
    """Returns all tensors of the header's file and the hex SHA-256 digest of the file's bytes.

    The tensors are views of one buffer of the file's size, which stays in memory as long as any of them.

    Raises:
        AdapterError: the file cannot be read, or has changed since its header was read.
    """
    start = len(header.raw)
    buffer = torch.empty(start + max(entry.stop for entry in header.entries.values()), dtype=torch.uint8)
    data = buffer.numpy().data
    try:
        with header.path.open("rb") as file:
            whole = file.readinto(data) == len(data) and not file.read(1)
    except OSError as error:
        raise AdapterError(f"cannot be read: {error.strerror}", file=header.path, remedy="check the disk, and run again") from error
    if not whole or data[:start] != header.raw:
        raise AdapterError("changed while it was being read", file=header.path, remedy="run again when the file is complete")
    return {name: _view(buffer, start, entry) for name, entry in header.entries.items()}, hashlib.sha256(data).hexdigest()


def _view(buffer: Tensor, offset: int, entry: HeaderEntry) -> Tensor:
    dtype = TORCH_DTYPES[entry.dtype]
    own = buffer[offset + entry.start : offset + entry.stop]
    if (offset + entry.start) % dtype.itemsize:
        own = own.clone()  # views need an aligned offset, which a header of odd length does not give
    return own.view(dtype).reshape(entry.shape)


def serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Returns the bytes of a safetensors file, which depend only on names, values and metadata.

    The header is sorted because ``safetensors.save`` writes metadata in an order that differs between processes.
    """
    data = save({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)})
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    table = {"__metadata__": dict(sorted(metadata.items()))} | {name: entries[name] for name in sorted(tensors)}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def write_atomically(data: bytes, path: Path) -> None:
    """Writes the bytes to ``path`` atomically and durably: readers see the old or the complete new file, also after a power failure.

    Raises:
        AdapterError: the file cannot be written.
    """
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
    if not hasattr(os, "O_DIRECTORY"):  # Windows needs no sync after a rename and cannot open folders
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
        problem = "is a symbolic link that leads nowhere" if path.is_symlink() else "does not exist"
        raise AdapterError(problem, file=path, remedy="check the path")
    if not path.is_file():
        raise AdapterError("is not a regular file", file=path, remedy="name a .safetensors file")
    size = path.stat().st_size
    if size == 0:
        raise AdapterError("is empty", file=path, remedy=_EXPORT_AGAIN)
    return size


def _table(text: bytes, path: Path) -> dict[str, Any]:
    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise ValueError("a name occurs twice")
        return table

    try:
        table = json.loads(text, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"not a safetensors file: its header cannot be read ({error})", file=path, remedy=_EXPORT_AGAIN) from error
    if not isinstance(table, dict):
        raise AdapterError("not a safetensors file: its header is not a table", file=path, remedy=_EXPORT_AGAIN)
    return table


def _entries(table: Mapping[str, Any], room: int, path: Path) -> dict[str, HeaderEntry]:
    entries = {name: _entry(fields, name, path) for name, fields in table.items()}
    if not entries:
        raise AdapterError("holds no tensor", file=path, remedy="name the file that holds the LoRA's weights")
    end = max(entry.stop for entry in entries.values())
    if end != room:
        raise AdapterError(
            f"cut off or damaged: the header asks for {end} bytes of tensors, the file holds {room}", file=path, remedy=_EXPORT_AGAIN
        )
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            raise AdapterError("overlaps with another tensor, or leaves a gap before it", file=path, key=name, remedy=_EXPORT_AGAIN)
        end = entry.stop
    return entries


def _entry(fields: Any, name: str, path: Path) -> HeaderEntry:
    try:
        (start, stop), shape, dtype = fields["data_offsets"], tuple(fields["shape"]), fields["dtype"]
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError("the header's entry is malformed", file=path, key=name, remedy=_EXPORT_AGAIN) from error
    if not all(type(n) is int and n >= 0 for n in (start, stop, *shape)) or start > stop or not isinstance(dtype, str):
        raise AdapterError("the header's entry is malformed", file=path, key=name, remedy=_EXPORT_AGAIN)
    if dtype not in TORCH_DTYPES:
        raise AdapterError(f"has the dtype {dtype[:20]!r}, which is not read", file=path, key=name, remedy=_EXPORT_AGAIN)
    if math.prod(shape) * TORCH_DTYPES[dtype].itemsize != stop - start:
        problem = (
            f"has {stop - start} bytes; its shape {str(shape)[:80]} of {dtype} needs {math.prod(shape) * TORCH_DTYPES[dtype].itemsize}"
        )
        raise AdapterError(problem, file=path, key=name, remedy=_EXPORT_AGAIN)
    return HeaderEntry(dtype, shape, start, stop)
