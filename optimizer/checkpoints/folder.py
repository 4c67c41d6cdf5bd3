"""Full models in diffusers pipeline folders."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from optimizer.adapters.files.digest import digest_file
from optimizer.adapters.files.variants import index_files, weight_files
from optimizer.checkpoints.model import MERGED, Model, StoredTensor, Tick, Weights, canonical
from optimizer.checkpoints.streaming import write_streamed
from optimizer.errors import BaseModelError
from optimizer.text import one_line

_INDEX = "model_index.json"
_WHOLE = "fetch the whole folder again"


class Folder(Model):
    """A full model in a folder.

    Args:
        folder: folder of a diffusers pipeline; weights are safetensors files, those of the variant ``fp16`` only if there are no
            others.

    Raises:
        BaseModelError: the folder is not a pipeline folder, or is incomplete.
    """

    suffix = ""

    def __init__(self, folder: str | Path) -> None:
        self.place = Path(folder)
        self.name = self.place.resolve().name
        self.kind, listed = _index(self.place)
        self.predicts = _predicts(self.place / "scheduler" / "scheduler_config.json")
        files = {part: _weight_files(self.place / part) for part in MERGED if part in listed}
        self._files = {file: _open(file) for file in sorted(file for each in files.values() for file in each)}
        self._stored: dict[tuple[str, str], tuple[Path, str]] = {}
        self._written: dict[str, dict[str, str]] = {part: {} for part in files}
        self.parts = {part: self._entries(part, each) for part, each in files.items()}

    def read(self, part: str, name: str) -> Tensor:
        """Returns a tensor as it is stored, memory-mapped: values are read from disk on access."""
        file, stored = self._stored[part, name]
        tensor: Tensor = self._files[file].get_tensor(stored)
        return tensor

    @cached_property
    def digest(self) -> str:
        """SHA-256, 64 hex digits, over samples of the files of all merged parts (``digest_file``)."""
        found = hashlib.sha256(self.kind.encode())
        for file in self._files:
            found.update(f"{file.relative_to(self.place).as_posix()}\0".encode())
            digest_file(found, file)
        return found.hexdigest()

    def write(self, weights: Weights, place: Path, *, dtype: str = "", tick: Tick | None = None) -> None:
        """Writes the model as in ``Model.write``, to a folder with one file per part. If an exception ends the writing, nothing is left."""
        growing = place.with_name(f".{place.name}.part")
        shutil.rmtree(growing, ignore_errors=True)
        try:
            shutil.copytree(self.place, growing, ignore=self._weights)
            self._write_parts(weights, growing, dtype, tick)
            growing.replace(place)
        finally:
            shutil.rmtree(growing, ignore_errors=True)

    def _write_parts(self, weights: Weights, folder: Path, dtype: str, tick: Tick | None) -> None:
        total, done = sum(map(len, self._written.values())), 0
        for part, names in self._written.items():

            def tensors(part: str = part, names: Mapping[str, str] = names) -> Iterator[Tensor]:
                nonlocal done
                for stored in sorted(names):
                    yield weights.read(part, names[stored])
                    done += 1
                    if tick:
                        tick(done, total)

            shapes = {stored: self._as_written(self.parts[part][names[stored]], dtype) for stored in sorted(names)}
            write_streamed(folder / part / _file(part), shapes, tensors())

    @staticmethod
    def _as_written(entry: StoredTensor, dtype: str) -> tuple[tuple[int, ...], str]:
        return entry.shape, dtype if dtype and entry.merges else entry.dtype

    def _entries(self, part: str, files: list[Path]) -> dict[str, StoredTensor]:
        found: dict[str, StoredTensor] = {}
        for file in files:
            opened = self._files[file]
            for stored in opened.keys():  # noqa: SIM118
                tensor, name = opened.get_slice(stored), canonical(part, stored)
                found[name] = StoredTensor(tuple(tensor.get_shape()), tensor.get_dtype())
                self._stored[part, name] = file, stored
                self._written[part][stored] = name
        if missing := _index_keys(self.place / part) - self._written[part].keys():
            problem = f"{len(missing)} tensors are missing, the first is {min(missing)}"
            raise BaseModelError(problem, where=self.place / part, remedy=_WHOLE)
        return found

    @property
    def _weights(self) -> Callable[[str, list[str]], list[str]]:
        """Function for ``shutil.copytree`` that excludes the weights and weight indices of the merged parts."""
        merged = {str(self.place / part) for part in self.parts}

        def ignored(folder: str, names: list[str]) -> list[str]:
            return [n for n in names if folder in merged and (".safetensors" in n or n.endswith((".bin", ".ckpt", ".msgpack")))]

        return ignored


def _index(folder: Path) -> tuple[str, Mapping[str, object]]:
    if not (folder / _INDEX).is_file():
        problem = f"no diffusers pipeline here ({_INDEX} is missing)"
        raise BaseModelError(problem, where=folder, remedy="give the folder of one")
    try:
        found = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        kind = str(found["_class_name"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BaseModelError(f"cannot be read: {one_line(error)}", where=folder / _INDEX, remedy=_WHOLE) from error
    return kind, {part: what for part, what in found.items() if isinstance(what, list) and what and what[-1]}


def _predicts(config: Path) -> str:
    """Returns the prediction type of a scheduler configuration; diffusers' default is noise (``epsilon``); empty if unreadable."""
    try:
        return str(json.loads(config.read_text(encoding="utf-8")).get("prediction_type", "epsilon"))
    except (OSError, ValueError, AttributeError):
        return ""


def _weight_files(folder: Path) -> list[Path]:
    files = weight_files(folder)
    if not files:
        raise BaseModelError("holds no safetensors weights", where=folder, remedy=_WHOLE)
    return files


def _open(file: Path) -> Any:
    """Returns an open file whose header is read once for all tensors."""
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        problem = f"cannot be read, or was not downloaded to its end ({error})"
        raise BaseModelError(problem, where=file, remedy=_WHOLE) from error


def _index_keys(folder: Path) -> set[str]:
    """Returns the keys in the index of a sharded model; empty without an index."""
    for index in index_files(folder):
        try:
            return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BaseModelError(f"cannot be read: {one_line(error)}", where=index, remedy=_WHOLE) from error
    return set()


def _file(part: str) -> str:
    """Returns the standard weight file name of a part in diffusers and transformers."""
    return "model.safetensors" if part.startswith("text_encoder") else "diffusion_pytorch_model.safetensors"
