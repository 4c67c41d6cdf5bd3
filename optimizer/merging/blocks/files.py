"""Block weights of several sources in one YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from optimizer.errors import RecipeError
from optimizer.merging.blocks.lists import number, read_list
from optimizer.merging.blocks.maps import block_map, check_block_names
from optimizer.merging.blocks.strings import read_blocks
from optimizer.text import one_line


def read_blocks_file(path: str | Path, names: Sequence[str], base: str) -> tuple[dict[str, float], ...]:
    """Returns the named block weights of every source, read from a YAML file with one entry per source.

    The file maps sources by name to their entries, or lists the entries in the order of the sources. An entry is a mapping from blocks
    to numbers, a list of numbers, or text in the syntax of ``read_blocks``. A source that is not named, or whose entry is empty, has no
    block weights.

    Args:
        path: path of the YAML file.
        names: names of the sources, in order.
        base: family of the base model, ``sd1`` …; ``unknown`` counts as ``sd1``.

    Returns:
        One mapping per source, in the format of ``Recipe.blocks``.

    Raises:
        RecipeError: the file or an entry is invalid; names file, entry and remedy.

    Example:
        A file for the sources ``neon`` and ``robot``::

            neon: STYLE
            robot: {IN: 1.0, OUT: 0.4, OUT05: 0.8}
    """
    block_map(base)
    entries = _by_source(_loaded(Path(path)), names, str(path))
    return tuple(_weights(entry, base, f"{path}: {name}") for name, entry in zip(names, entries, strict=True))


def _loaded(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror or error}", where=path, remedy="give a YAML file that exists") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"not readable as YAML: {one_line(error)}", where=path, remedy="correct the YAML syntax") from None


def _by_source(data: object, names: Sequence[str], where: str) -> list[object]:
    """Returns one entry per source, in order; None for a source without an entry."""
    if isinstance(data, list):
        if len(data) != len(names):
            raise RecipeError(f"{len(data)} entries for {len(names)} sources", where=where, remedy="give one a source, in their order")
        return data
    if not isinstance(data, Mapping):
        raise RecipeError(
            f"block weights are a mapping of sources, or a list in their order, not {type(data).__name__}",
            where=where,
            remedy=f"write one entry a source: {', '.join(names)}",
        )
    if len(set(names)) < len(names):
        raise RecipeError("two sources have the same name", where=where, remedy="write a list, in the order of the sources")
    entries = {str(name): entry for name, entry in data.items()}
    for name in entries:
        if name not in names:
            raise RecipeError(f"unknown source {name!r}", where=where, remedy=f"sources: {', '.join(names)}")
    return [entries.get(name) for name in names]


def _weights(entry: object, base: str, where: str) -> dict[str, float]:
    if entry is None:
        return {}
    if isinstance(entry, str):
        return read_blocks(entry, base, where=where)
    if isinstance(entry, list):
        return read_list(entry, base, where=where)
    if isinstance(entry, Mapping):
        blocks = {str(block): weight for block, weight in entry.items()}
        check_block_names(blocks, where=where, base=base)
        return {block: number(weight, f"the weight of {block}", where) for block, weight in blocks.items()}
    raise RecipeError(
        f"an entry is a mapping, a list or text, not {type(entry).__name__}",
        where=where,
        remedy="write block: number for each block, or text such as STYLE",
    )
