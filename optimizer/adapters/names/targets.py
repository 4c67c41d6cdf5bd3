"""Places: which modules of the pipeline a module of a file stands for.

Most stand for one. Where the model's original code keeps several projections in one weight (q, k and v), a file with its names does
too; such a place has several canonical paths, the rows of which stand below each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from optimizer.adapters.families import FAMILIES, INNER, Family, Native, Run
from optimizer.adapters.names.grammar import Grammar, filled
from optimizer.adapters.names.paths import grammar


@dataclass(frozen=True)
class Place:
    """What one module of a file changes.

    Attributes:
        paths: canonical module paths, one or more.
        rows: of several, how many rows each has, in multiples of the weight's columns.
        swapped: the two halves of the rows are the other way round, where rows = 2 · columns.
        name: the module's own name inside its part, as the file has it.
    """

    paths: tuple[str, ...]
    rows: tuple[int, ...] = ()
    swapped: bool = False
    name: str = ""

    @property
    def part(self) -> str:
        """The part of the pipeline that it lies in."""
        return self.paths[0].partition(".")[0]


@dataclass(frozen=True)
class _Grammars:
    """What a part's modules are called in one spelling: by diffusers, and in the original code."""

    modules: Grammar[str]
    native: Grammar[Native]
    inner: str
    runs: tuple[Run, ...]

    def place(self, part: str, name: str) -> Place | None:
        if found := self.modules.find(name.removeprefix(self.inner)):
            path = filled(*found)
            return Place((f"{part}.{path}",), name=path) if self._has(*found) else None
        if native := self.native.find(name):
            record, indices = native
            if not self._has(record.modules[0], indices):
                return None
            paths = tuple(f"{part}.{filled(module, indices)}" for module in record.modules)
            return Place(paths, record.rows, record.swapped, name)
        return None

    def _has(self, template: str, indices: tuple[str, ...]) -> bool:
        """Whether there are so many blocks; otherwise alike, families differ in their number."""
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


def place(family: Family, part: str, name: str, separator: str) -> Place | None:
    """Where a module's name leads in a family; None where the family has no such part or module.

    Args:
        family: of base models.
        part: of the pipeline.
        name: inside the part, in diffusers' or in the original spelling.
        separator: ``"."``, or ``"_"`` where the file has underscores for dots.
    """
    found = _grammars(family.name, separator).get(part)
    return found.place(part, name) if found else None
