"""Proposals that no trial had: samplers may propose a merge again where weights are on a grid, and its trial would show nothing new."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Mapping
from itertools import islice
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution

from optimizer.search.proposals.space import SearchSpace

Values = dict[str, Any]

# Most neighbours that are looked at, nearest first; where all of them are known, a search is done anyway.
_LIMIT = 500


def unknown_neighbour(
    space: SearchSpace,
    values: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    known: Container[str],
    fixed: Container[str],
) -> Values | None:
    """Returns the nearest values whose merge is not known; the values themselves if it is theirs, None if all near merges are known.

    Only values on a grid are changed, one step at a time; of equally near neighbours, the first in the order of the parameters is taken.

    Args:
        space: search space of the study.
        values: proposed values.
        distributions: distribution of each value.
        known: hashes of the recipes that trials had.
        fixed: names of values that must stay, such as those that were queued with the trial.
    """
    grid = {
        name: distribution
        for name, distribution in distributions.items()
        if isinstance(distribution, FloatDistribution) and distribution.step and name not in fixed
    }
    near = islice(_nearest_first(dict(values), grid), _LIMIT)
    return next((found for found in near if space.recipe(found).hash not in known), None)


def _nearest_first(values: Values, grid: Mapping[str, FloatDistribution]) -> Iterator[Values]:
    """Yields the values and their neighbours on the grid, by the number of steps."""
    waiting, met = deque([values]), {_key(values, grid)}
    while waiting:
        yield (current := waiting.popleft())
        for near in _one_step(current, grid):
            if (key := _key(near, grid)) not in met:
                met.add(key)
                waiting.append(near)


def _one_step(values: Values, grid: Mapping[str, FloatDistribution]) -> Iterator[Values]:
    for name, distribution in grid.items():
        assert distribution.step is not None
        for step in (-distribution.step, distribution.step):
            moved = round(values[name] + step, 10)
            if distribution.low <= moved <= distribution.high:
                yield {**values, name: moved}


def _key(values: Values, grid: Mapping[str, FloatDistribution]) -> tuple[float, ...]:
    return tuple(values[name] for name in grid)
