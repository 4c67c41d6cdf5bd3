"""Scores of a candidate's pictures, with the interval that the prompts leave."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from objectives import Measurements, MetricError, Outcomes, Pictures, Scorer, interval, resamples, score, without_each
from optimizer.errors import TrialError

_RESAMPLES = 1000


@dataclass(frozen=True)
class Scored:
    """Score of a candidate on some prompts.

    Attributes:
        measurements: measurements by all objectives, which the bootstrap resamples.
        outcomes: outcomes of all objectives over all of these prompts.
        value: the score, in [0, 1].
        interval: ends of its 95 % bootstrap interval over the prompts; None if there is only one prompt of a kind.
    """

    measurements: Measurements
    outcomes: Outcomes
    value: float
    interval: tuple[float, float] | None

    def scaled(self, factor: float) -> Scored:
        """Returns the score and its interval multiplied by a factor, at most 1."""
        ends = self.interval and (min(1.0, factor * self.interval[0]), min(1.0, factor * self.interval[1]))
        return replace(self, value=min(1.0, factor * self.value), interval=ends)


def scored(scorer: Scorer, pictures: Pictures, asked: Tensor, priorities: Sequence[float]) -> Scored:
    """Measures and scores a candidate.

    Args:
        scorer: objectives with their references on the prompts.
        pictures: the candidate's pictures of the prompts.
        asked: kind of every prompt, int64, (n,).
        priorities: priority of each source; empty if all are equal.

    Raises:
        TrialError: a metric fails, or the score is not finite.
    """
    with metric_errors():
        measurements = scorer.measure(pictures)
    outcomes = scorer.compare(measurements)
    value = float(score(outcomes, priorities))
    if not math.isfinite(value):
        raise TrialError(f"the score is {value}", remedy="look at the pictures of the sources alone")
    return Scored(measurements, outcomes, value, _interval(scorer, measurements, asked, priorities, value))


def without_each_prompt(scorer: Scorer, found: Scored, count: int, priorities: Sequence[float]) -> tuple[float, ...]:
    """Returns the score of a candidate without each of its prompts in turn.

    Args:
        scorer: scorer of the prompts.
        found: score of the candidate on all of them.
        count: number of the prompts.
        priorities: priority of each source; empty if all are equal.
    """
    return tuple(score(scorer.compare(found.measurements, without_each(count)), priorities).broadcast_to(count).tolist())


@contextmanager
def metric_errors() -> Iterator[None]:
    """Turns the error of a metric into that of the candidate that it measures.

    Raises:
        TrialError: a metric fails, or a value is not finite.
    """
    try:
        yield
    except MetricError as error:
        raise TrialError(error.problem, remedy=error.remedy) from error


def _interval(
    scorer: Scorer, measurements: Measurements, asked: Tensor, priorities: Sequence[float], value: float
) -> tuple[float, float] | None:
    if int(torch.unique(asked, return_counts=True)[1].min()) < 2:
        return None
    outcomes = scorer.compare(measurements, resamples(asked, count=_RESAMPLES, seed=0))
    samples = score(outcomes, priorities).broadcast_to(_RESAMPLES)
    found = interval(value, samples, asked)
    return found.low, found.high
