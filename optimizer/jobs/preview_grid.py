"""Weights that a preview shows side by side: the texts of ``--grid``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optimizer.errors import UsageError
from optimizer.search.config.named import by_source, number, parse_named

GRID = "--grid"
_REMEDY = "write NAME=LOW:HIGH:STEP with three numbers, such as hero=0:1.2:0.3"
_MOST = 30  # values of one axis; more are not to be seen on a sheet


@dataclass(frozen=True)
class Axis:
    """Weights of one source.

    Attributes:
        source: index of the source.
        name: its name.
        values: weights, ascending.
    """

    source: int
    name: str
    values: tuple[float, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Name and weight, one for each value."""
        return tuple(f"{self.name} {value:g}" for value in self.values)


def parse_grid(texts: Sequence[str], names: Sequence[str]) -> tuple[Axis, ...]:
    """Returns the axes of a grid, in the order in which they are given.

    Args:
        texts: none, one or two texts ``NAME=LOW:HIGH:STEP``.
        names: names of the sources, in order.

    Raises:
        UsageError: a text is invalid or names no source, or there are more than two.

    Example:
        >>> parse_grid(["style=0:1:0.5"], ["hero", "style"])
        (Axis(source=1, name='style', values=(0.0, 0.5, 1.0)),)
    """
    if len(texts) > 2:
        raise UsageError(f"{len(texts)} sources given", where=GRID, remedy="give one for a row of pictures, two for rows and columns")
    found = []
    for text, given in zip(texts, parse_named(texts, GRID, _values, _REMEDY, "range"), strict=True):
        if not 2 <= len(given.value) <= _MOST:
            problem = f"{text!r} gives {len(given.value)} weights{' or more' if len(given.value) > _MOST else ''}"
            raise UsageError(problem, where=GRID, remedy=f"give 2 to {_MOST}, by another range or step")
        found.append(given)
    values = by_source(found, names, GRID, "range")
    order = [name for each in found for name in values if values[name] is each.value]
    return tuple(Axis(names.index(name), name, values[name]) for name in order)


def _values(text: str) -> tuple[float, ...] | None:
    """Returns the multiples of the step from the first number on, up to the second; None if the text has another form."""
    low, high, step = (*map(number, text.split(":")), math.nan, math.nan, math.nan)[:3] if text.count(":") == 2 else (math.nan,) * 3
    if not all(map(math.isfinite, (low, high, step))) or step <= 0:
        return None
    count = math.floor((high - low) / step + 1e-9) + 1
    return tuple(round(low + index * step, 6) for index in range(min(max(count, 0), _MOST + 1)))
