"""Choice of fixed weights: equal ones first, then each weight up and down in ever smaller steps, on a grid of 0.05."""

from __future__ import annotations

from collections.abc import Callable

Weights = tuple[float, ...]
_EQUAL = tuple(round(0.3 + 0.1 * i, 2) for i in range(11))
_STEPS = (0.2, 0.1, 0.05)
_LEAST, _GREATEST = 0.1, 2.0


def chosen_weights(count: int, reading: Callable[[Weights], float]) -> dict[Weights, float]:
    """Returns all weights that were tried, with their readings.

    Args:
        count: number of sources.
        reading: what is to be greatest, of weights.
    """
    tried: dict[Weights, float] = {}

    def value(weights: Weights) -> float:
        if weights not in tried:
            tried[weights] = reading(weights)
        return tried[weights]

    best = max(((weight,) * count for weight in _EQUAL), key=value)
    for step in _STEPS:
        while (found := max([best, *_neighbours(best, step)], key=value)) != best:
            best = found
    return tried


def _neighbours(weights: Weights, step: float) -> list[Weights]:
    moved = [(*weights[:k], round(weight + sign * step, 2), *weights[k + 1 :]) for k, weight in enumerate(weights) for sign in (-1, 1)]
    return [one for one in moved if all(_LEAST <= weight <= _GREATEST for weight in one)]
