"""File names of merged LoRAs: sources, merge method, weights and version."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from optimizer.adapters import clean_name

_LONGEST = 120
_METHOD = 24
_SUFFIX = ".safetensors"
_VERSION = re.compile(r"_v(\d+)$")


def file_name(source_names: Sequence[str], recipe_weights: Sequence[float], method: str, version: int) -> str:
    """Returns ``{sources}_{method}_{weights}_v{version}.safetensors``, at most 120 bytes, of letters, digits and ``.+_-``.

    Source names share the remaining length equally, so that all of them appear.

    Args:
        source_names: source names, any strings.
        recipe_weights: one weight per source, in the order of ``source_names``.
        method: name of the merge method.
        version: version number, from 1.

    Example:
        >>> file_name(["hero", "neon"], [0.7, 1.0], "ties", 2)
        'hero-neon_ties_0.7-1_v2.safetensors'
    """
    if not source_names or len(source_names) != len(recipe_weights):
        raise ValueError(f"{len(source_names)} sources and {len(recipe_weights)} weights; need one weight for each of one or more sources")
    weights = "-".join(f"{weight:.3g}".replace("-", "m").replace("+", "") for weight in recipe_weights)
    tail = f"_{clean_name(method, _METHOD)}_{weights}_v{version}{_SUFFIX}"
    each = max(1, (_LONGEST - len(tail.encode()) + 1) // len(source_names) - 1)
    return "-".join(clean_name(name, each) for name in source_names) + tail


def unversioned(stem: str) -> str:
    """Returns the stem of a file name without its version."""
    return _VERSION.sub("", stem)


def next_free(path: str | Path, beside: Sequence[str] = ()) -> Path:
    """Returns the path if it does not exist, else the path with the next unused version number.

    Args:
        path: intended path of the file.
        beside: suffixes of accompanying files, which must not exist either.
    """
    path = Path(path)
    stem, found = unversioned(path.stem), _VERSION.search(path.stem)
    version = int(found.group(1)) if found else 1
    while any(p.exists() or p.is_symlink() for p in (path, *(path.with_suffix(suffix) for suffix in beside))):
        version += 1
        path = path.with_name(f"{stem}_v{version}{path.suffix}")
    return path
