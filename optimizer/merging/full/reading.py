"""Reading full models: the tensors in the folder of a diffusers pipeline, one at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from optimizer.errors import BaseModelError

MERGED = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Parts of a pipeline that are merged; the others are those of the first model."""

_INDEX = "model_index.json"
_WHOLE = "fetch the whole folder again"
_FLOATS = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True)
class Entry:
    """A tensor of a model: its file, its shape, and its number format as safetensors spells it."""

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def merges(self) -> bool:
        """Whether it holds weights, rather than counts or positions."""
        return self.dtype in _FLOATS


class Model:
    """A full model.

    Args:
        folder: of a diffusers pipeline; weights are safetensors files, of which those of variant ``fp16`` are read where there are no
            others.

    Attributes:
        name: the folder's.
        parts: part → name of a tensor → where and what it is.

    Raises:
        BaseModelError: not the folder of a pipeline, or not all of it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = self.folder.resolve().name
        self.kind, listed = _index(self.folder)
        self.parts: dict[str, dict[str, Entry]] = {part: _entries(self.folder / part) for part in MERGED if part in listed}

    def read(self, part: str, name: str) -> Tensor:
        """A tensor as it is stored."""
        with safe_open(self.parts[part][name].file, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    @property
    def names(self) -> Iterator[tuple[str, str]]:
        """Every (part, tensor), in a fixed order."""
        return ((part, name) for part, entries in self.parts.items() for name in sorted(entries))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, shapes and number formats of all tensors, and the first and last mebibyte of every file."""
        found = hashlib.sha256(self.kind.encode())
        files = sorted({entry.file for entries in self.parts.values() for entry in entries.values()})
        for file in files:
            size = file.stat().st_size
            found.update(f"{file.relative_to(self.folder).as_posix()}\0{size}\0".encode())
            with file.open("rb") as opened:
                found.update(opened.read(1 << 20))
                opened.seek(max(0, size - (1 << 20)))
                found.update(opened.read())
        return found.hexdigest()


def _index(folder: Path) -> tuple[str, Mapping[str, object]]:
    if not (folder / _INDEX).is_file():
        problem = f"no diffusers pipeline here ({_INDEX} is missing)"
        raise BaseModelError(problem, where=folder, remedy="give the folder of one; a single file is converted by save_pretrained")
    try:
        found = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        kind = str(found["_class_name"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BaseModelError(f"cannot be read: {' '.join(str(error).split())}", where=folder / _INDEX, remedy=_WHOLE) from error
    return kind, {part: what for part, what in found.items() if isinstance(what, list) and what and what[-1]}


def _entries(folder: Path) -> dict[str, Entry]:
    every = sorted(folder.glob("*.safetensors"))
    files = [file for file in every if ".fp16" not in file.name] or every
    if not files:
        raise BaseModelError("holds no safetensors weights", where=folder, remedy=_WHOLE)
    found: dict[str, Entry] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    part = opened.get_slice(name)
                    found[name] = Entry(file, tuple(part.get_shape()), part.get_dtype())
        except (OSError, SafetensorError) as error:
            problem = f"cannot be read, or was not downloaded to its end ({error})"
            raise BaseModelError(problem, where=file, remedy=_WHOLE) from error
    if missing := _promised(folder) - found.keys():
        problem = f"{len(missing)} tensors are missing, the first is {min(missing)}"
        raise BaseModelError(problem, where=folder, remedy=_WHOLE)
    return found


def _promised(folder: Path) -> set[str]:
    """The tensors that the index of a model in several files names."""
    for index in folder.glob("*.safetensors.index.json"):
        if ".fp16" not in index.name:
            return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    return set()
