"""Replaying a merge: reads a recipe from a recipe file or a merged file, and locates its source files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from optimizer.adapters.files.container import read_header
from optimizer.errors import AdapterError, RecipeError, UsageError
from optimizer.export import RECIPE_KEY, Setup
from optimizer.merging import Recipe
from optimizer.text import one_line
from studies.demo.world import PREFIX, demo_sources

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class SavedRecipe:
    """A recipe as read from a file, with the information needed to replay it.

    Attributes:
        fields: field values for ``Recipe``.
        setup: source names and dialect.
        folder: directory that contains the file.
    """

    fields: dict[str, Any]
    setup: Setup
    folder: Path


def read_saved_recipe(path: Path) -> SavedRecipe:
    """Reads a recipe from a YAML or JSON file, or from the header of a merged file.

    Raises:
        UsageError: the file does not exist.
        AdapterError: the file is not a safetensors file.
        RecipeError: the file contains no recipe.
    """
    if not path.is_file():
        raise UsageError("there is no such file", where=path, remedy="give a recipe (YAML) or a merged LoRA, or name --sources")
    if path.suffix.lower() == _SUFFIX:
        header = dict(read_header(path).metadata)
        if RECIPE_KEY not in header:
            raise RecipeError("holds no recipe", where=path, remedy="give a LoRA that this software merged, or a recipe file")
        return SavedRecipe(_fields(_parsed(header[RECIPE_KEY], path), path), Setup.of_header(header), path.parent)
    data = _fields(_parsed(path.read_text(encoding="utf-8", errors="replace"), path), path)
    try:
        setup = Setup.model_validate(data.pop("setup", None) or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in ("setup", *first["loc"]))
        raise RecipeError(f"got {first['input']!r}", where=f"{path}: {place}", remedy=first["msg"]) from None
    return SavedRecipe(data, setup, path.parent)


def _parsed(text: str, path: Path) -> object:
    try:
        return json.loads(text) if path.suffix.lower() in (_SUFFIX, ".json") else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = f"the recipe is not readable: {one_line(error)}"
        raise RecipeError(problem, where=path, remedy="correct the syntax") from None


def _fields(data: object, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise RecipeError("holds no recipe", where=path, remedy="start with 'method: …' and 'weights: …'")
    return dict(data)


def sources_of(saved: SavedRecipe, given: Sequence[str]) -> tuple[str, ...]:
    """Returns the paths of the source files of a recipe, in the recipe's order.

    If the recipe identifies its sources by SHA-256, they are found under any file name. The search covers the given files and
    directories, the paths stored in the recipe file, its directory, the working directory, and the demo sources. If the recipe
    has no digests, the given files are used, or else the files that the recipe lists.

    Raises:
        UsageError: a source is not found; the message names it.
    """
    wanted = Recipe(**saved.fields).sources if "weights" in saved.fields else ()
    listed = tuple(spec if spec.startswith(PREFIX) else os.path.normpath(saved.folder / spec) for spec in saved.setup.files)
    if not wanted:
        return tuple(given) or listed
    found: dict[str, str] = {}
    for spec, path in _candidates((*given, *listed), saved.folder):
        if set(wanted) <= found.keys():
            break
        found.setdefault(_sha256(path), spec)
    for index, sha256 in enumerate(wanted):
        if sha256 not in found:
            name = saved.setup.names[index] if index < len(saved.setup.names) else f"source {index + 1}"
            raise UsageError(
                f"{name} (SHA-256 {sha256}) was not found", where="--sources", remedy="name the file, or the directory that it lies in"
            )
    return tuple(found[sha256] for sha256 in wanted)


def _candidates(specs: Sequence[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields files that may be sources, the most likely first, each with the string that names it."""
    demo = demo_sources()
    for spec in specs:
        if spec.removeprefix(PREFIX) in demo and spec.startswith(PREFIX):
            yield spec, demo[spec.removeprefix(PREFIX)].path
        elif Path(spec).is_dir():
            yield from _files(Path(spec))
        elif Path(spec).is_file():
            yield spec, Path(spec)
    yield from ((f"{PREFIX}{name}", source.path) for name, source in demo.items())
    yield from _files(folder)
    yield from _files(Path())


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        if path.is_file():
            yield str(path), path


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AdapterError(f"cannot be read: {error.strerror}", file=path, remedy="check the file's permissions") from None
