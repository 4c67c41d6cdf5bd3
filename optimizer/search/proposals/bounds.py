"""Bounds of the weights that a search may propose: a range for each source, fixed weights, and the grid of all values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import FloatDistribution

from optimizer.errors import UsageError
from optimizer.search.config import Search
from optimizer.search.config.named import by_source
from optimizer.search.config.weights import FREEZE, WEIGHTS, parse_frozen, parse_ranges

# A value this near to a multiple of the grid, in steps, is on the grid; Optuna's distributions have the same tolerance.
_NEAR = 1e-8


@dataclass(frozen=True)
class Bounds:
    """Bounds of weights and block weights.

    Attributes:
        ranges: source → range of its weight, where the user gives one; the ends are on the grid.
        frozen: source → weight that every proposal has.
        grid: step of proposed values, which are multiples of it; 0 for any value.
    """

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    frozen: Mapping[str, float] = field(default_factory=dict)
    grid: float = 0.0

    @classmethod
    def of(cls, search: Search, names: Sequence[str]) -> Bounds:
        """Returns the bounds of a configuration.

        Args:
            search: settings with the texts of ``--weights`` and ``--freeze``.
            names: names of the sources, in order.

        Raises:
            UsageError: a text is invalid or names no source, a source is in both options, or a range holds less than two multiples of
                the grid.
        """
        ranges = by_source(parse_ranges(search.weights), names, WEIGHTS, "range")
        frozen = by_source(parse_frozen(search.freeze), names, FREEZE, "weight")
        if both := [name for name in ranges if name in frozen]:
            remedy = f"give {both[0]} a range with {WEIGHTS}, or one weight with {FREEZE}"
            raise UsageError(f"{both[0]} is in {WEIGHTS}, too", where=FREEZE, remedy=remedy)
        for name, (low, high) in ranges.items():
            first, last = on_grid(low, high, search.grid)
            if first >= last:
                problem = f"less than two multiples of {search.grid:g} are from {low:g} to {high:g}, the range of {name}"
                raise UsageError(problem, where=WEIGHTS, remedy="widen it, or give a smaller step with --grid")
        return cls({name: on_grid(*ends, search.grid) for name, ends in ranges.items()}, frozen, search.grid)

    def described(self) -> dict[str, Any]:
        """Returns the bounds that differ from the defaults of earlier versions, JSON-serializable."""
        parts = {"ranges": {name: list(ends) for name, ends in self.ranges.items()}, "frozen": dict(self.frozen), "grid": self.grid}
        return {name: part for name, part in parts.items() if part}

    def distribution(self, low: float, high: float, given: float | None = None) -> FloatDistribution:
        """Returns the distribution of a value between two ends, which are moved inwards to the grid.

        Args:
            low: lower end.
            high: upper end.
            given: value of a trial that was not proposed by a sampler. If it is outside the range, or off the grid, the distribution is a
                continuous one that contains it, because stored values must be among those of their distribution.
        """
        first, last = on_grid(low, high, self.grid)
        if given is None or (first <= given <= last and self._is_multiple(given)):
            return FloatDistribution(first, last, step=self.grid or None)
        return FloatDistribution(min(low, given), max(high, given))

    def nearest(self, value: float, low: float, high: float) -> float:
        """Returns the value of a range, and of the grid, that is nearest to another one."""
        first, last = on_grid(low, high, self.grid)
        moved = round(value / self.grid) * self.grid if self.grid else value
        return min(last, max(first, round(moved, 10)))

    def _is_multiple(self, value: float) -> bool:
        return not self.grid or abs(value / self.grid - round(value / self.grid)) < _NEAR


def on_grid(low: float, high: float, grid: float) -> tuple[float, float]:
    """Returns the first and the last multiple of the grid in a range; the ends as they are for a grid of 0.

    Example:
        >>> on_grid(0.42, 0.9, 0.05)
        (0.45, 0.9)
    """
    if not grid:
        return low, high
    return round(math.ceil(low / grid - _NEAR) * grid, 10), round(math.floor(high / grid + _NEAR) * grid, 10)
