"""Targets: map a module of a file to one or several modules of the pipeline.

Most targets have one module. Where the model's original code fuses several projections into one weight (q, k and v), so does a file
with its names; such a target has several canonical paths, whose weights are stacked by rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from optimizer.adapters.families import FAMILIES, INNER, Family, Native, Run
from optimizer.adapters.names.grammar import Grammar, fill
from optimizer.adapters.names.paths import grammar


@dataclass(frozen=True)
class Target:
    """The pipeline modules that one module of a file changes.

    Attributes:
        paths: canonical module paths, one or more.
        rows: number of rows per module for several paths, in multiples of the weight's columns; empty for one path.
        swapped: whether the two halves of the rows are swapped relative to diffusers, if rows = 2 · columns.
        name: module name inside its part, as written in the file.
    """

    paths: tuple[str, ...]
    rows: tuple[int, ...] = ()
    swapped: bool = False
    name: str = ""

    @property
    def part(self) -> str:
        """Pipeline part that contains the modules."""
        return self.paths[0].partition(".")[0]


@dataclass(frozen=True)
class _Grammars:
    """Grammars of a part's module names for one separator: names of diffusers, and names of the original code."""

    modules: Grammar[str]
    native: Grammar[Native]
    inner: str
    runs: tuple[Run, ...]

    def find(self, part: str, name: str) -> Target | None:
        if found := self.modules.find(name.removeprefix(self.inner)):
            path = fill(*found)
            return Target((f"{part}.{path}",), name=path) if self._has(*found) else None
        if native := self.native.find(name):
            record, indices = native
            if not self._has(record.modules[0], indices):
                return None
            paths = tuple(f"{part}.{fill(module, indices)}" for module in record.modules)
            return Target(paths, record.rows, record.swapped, name)
        return None

    def _has(self, template: str, indices: tuple[str, ...]) -> bool:
        """Returns whether the block index exists in the family; some families differ only in their number of blocks."""
        return not any(template.startswith(f"{run.modules}.") and int(indices[0]) >= run.count for run in self.runs)


@cache
def _grammars(family: str, separator: str) -> Mapping[str, _Grammars]:
    record = FAMILIES[family]
    native = Grammar({**record.native, **record.foreign}, separator)
    none: Grammar[Native] = Grammar({}, separator)
    inner = INNER.replace(".", separator)
    return {
        part: _Grammars(grammar(templates, separator), native if part == record.denoiser else none, inner, record.runs)
        for part, templates in record.parts.items()
    }


def find_target(family: Family, part: str, name: str, separator: str) -> Target | None:
    """Returns the target of a module name in a family; None if the family has no such part or module.

    Args:
        family: base model family.
        part: pipeline part.
        name: module name inside the part, as in diffusers or in the original code.
        separator: ``"."``, or ``"_"`` for flattened names.
    """
    found = _grammars(family.name, separator).get(part)
    return found.find(part, name) if found else None
