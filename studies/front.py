"""The Pareto front: what trials are compared by if they are not reduced to one score, and which of them no other one beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod

from studies.records import Evaluation

_FACTOR = ":factor"


def axes_of(evaluation: Evaluation) -> tuple[float, ...]:
    """Returns the values of a candidate on the axes of the front, all to be maximized: one for each source, then minus the artifact level.

    A source that cannot be measured, and so has no share, has no axis. The value of a source is its share times the factors of the score
    besides that of the artifacts, such as familiarity, so that what discounts the score discounts every source.

    Example:
        >>> from studies.records import SourceScore
        >>> sources = {"hero": SourceScore(preservation=0.5, own=0.5, joint=0.5)}
        >>> metrics = {"familiarity:factor": 0.5, "familiarity:distance": 2.0}
        >>> axes_of(Evaluation(recipe={}, recipe_hash="", score=0.4, sources=sources, artifacts=1.5, metrics=metrics))
        (0.25, -1.5)
    """
    factor = prod(value for name, value in evaluation.metrics.items() if name.endswith(_FACTOR))
    shares = [source.preservation for source in evaluation.sources.values() if math.isfinite(source.preservation)]
    return (*(share * factor for share in shares), -evaluation.artifacts)


def pareto_front(values: Sequence[Sequence[float]]) -> list[bool]:
    """Returns whether each row of values to maximize is not dominated by another row (at least as good everywhere, better somewhere)."""
    return [not any(_dominates(other, row) for other in values) for row in values]


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))
