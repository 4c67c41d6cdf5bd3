"""Statistical significance of differences between candidates, by a paired bootstrap over prompts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """A value with a bootstrap confidence interval.

    Attributes:
        value: value over all prompts.
        low, high: ends of the interval, which contains the value.
    """

    value: float
    low: float
    high: float


def resamples(asked: Tensor, *, count: int, seed: int) -> Tensor:
    """Returns the number of times that each prompt counts in each bootstrap resample.

    Resampling is stratified by the kind of prompt, so that no kind is empty. All candidates are compared on the same resamples.

    Args:
        asked: kind of every prompt, e.g. the source that it asks for, int64, (n,).
        count: number of resamples.
        seed: seed of the random generator.

    Returns:
        Counts, float32, (count, n); they sum to n in every resample.

    Example:
        >>> drawn = resamples(torch.tensor([0, 0, 1]), count=5, seed=0)
        >>> drawn.shape, drawn[:, 2].tolist()  # the only prompt of its kind
        (torch.Size([5, 3]), [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros(count, len(asked))
    for kind in sorted(set(asked.tolist())):
        members = (asked == kind).nonzero()[:, 0]
        picks = members[torch.randint(len(members), (count, len(members)), generator=generator)]
        drawn.scatter_add_(1, picks, torch.ones_like(picks, dtype=drawn.dtype))
    return drawn


def interval(value: float, samples: Tensor, level: float = 0.95) -> Interval:
    """Returns the percentile interval of bootstrap samples, extended to contain the value.

    The extension is needed because resampling biases a minimum downwards.

    Args:
        value: value over all prompts.
        samples: value in every resample, (count,).
        level: confidence level, in (0, 1).

    Example:
        >>> interval(50.0, torch.linspace(0, 100, 101, dtype=torch.float64), level=0.5)
        Interval(value=50.0, low=25.0, high=75.0)
    """
    tail = (1 - level) / 2
    low, high = torch.quantile(samples, torch.tensor([tail, 1 - tail], dtype=samples.dtype)).tolist()
    return Interval(value, min(low, value), max(high, value))


def probability_better(a: Tensor, b: Tensor) -> float:
    """Returns the fraction of resamples in which a exceeds b; ties do not count.

    Args:
        a, b: values of two candidates in every resample, (count,), over the same resamples.

    Example:
        >>> probability_better(torch.tensor([1.0, 0.5, 0.2, 0.9]), torch.tensor([0.5, 0.5, 0.5, 0.5]))
        0.5
    """
    return float((a > b).double().mean())
