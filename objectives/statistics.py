"""Statistical significance of differences between candidates, by a paired bootstrap over prompts.

Of few prompts, a bootstrap is too sure: resamples of n prompts vary as if the variance were (n − 1)/n of what it is, and their percentiles
neglect that it is estimated. Both are made up for by taking percentiles farther out ("expanded" percentiles, Hesterberg, *What Teachers
Should Know About the Bootstrap*, arXiv 1411.5279). ``benchmarks.certainty`` measures how often the results are right.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import torch
from scipy.special import ndtr, stdtrit
from torch import Tensor

LEVEL = 0.95
"""Confidence level of intervals and verdicts."""


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


def interval(value: float, samples: Tensor, asked: Tensor, level: float = LEVEL) -> Interval:
    """Returns the expanded percentile interval of bootstrap samples, extended to contain the value.

    The extension adds nothing to how often the true value is covered; it keeps in the interval what is printed beside it.

    Args:
        value: value over all prompts.
        samples: value in every resample, (count,).
        asked: kind of every prompt, int64, (n,).
        level: confidence level, in (0, 1).

    Example:
        >>> many = torch.zeros(100_000, dtype=torch.int64)
        >>> found = interval(50.0, torch.linspace(0, 100, 101, dtype=torch.float64), many, level=0.5)
        >>> round(found.low, 1), round(found.high, 1)
        (25.0, 75.0)
    """
    tail = expanded((1 - level) / 2, asked)
    low, high = torch.quantile(samples, torch.tensor([tail, 1 - tail], dtype=samples.dtype)).tolist()
    return Interval(value, min(low, value), max(high, value))


def noise(lead: float, samples: Tensor, asked: Tensor, candidates: int = 1, level: float = LEVEL) -> float:
    """Returns the lead over another candidate that chance alone gives with a probability of at most 1 − level.

    It is the distance between the lead and the end of its one-sided interval. Where the best of several candidates leads, each of them
    could have done so by chance, so that the probability is divided by their number (Bonferroni).

    Args:
        lead: value of a candidate less that of the other one.
        samples: lead in every resample, (count,).
        asked: kind of every prompt, int64, (n,).
        candidates: number of candidates that this one is the best of.
        level: confidence level, in (0, 1).

    Returns:
        Lead that has to be exceeded; infinite if there is only one prompt of a kind, which says nothing about chance.

    Example:
        >>> drawn = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> asked = torch.tensor([0, 1]).repeat_interleave(100)
        >>> [round(noise(1.0, 1 + drawn, asked, candidates), 1) for candidates in (1, 3)]
        [1.7, 2.2]
    """
    tail = expanded((1 - level) / candidates, asked)
    return lead - float(torch.quantile(samples, tail)) if tail > 0 else math.inf


def without_each(count: int) -> Tensor:
    """Returns the number of times that each prompt counts when one after the other is left out, float32, (count, count).

    Example:
        >>> without_each(2)
        tensor([[0., 1.],
                [1., 0.]])
    """
    return torch.ones(count, count) - torch.eye(count)


def lead_bound(lead: float, without: Tensor, asked: Tensor, level: float = LEVEL) -> float:
    """Returns the upper end of the one-sided interval of a lead, by the stratified jackknife over the prompts.

    The error is √(Σ (nₖ − 1)/nₖ · Σᵢ (lᵢ − l̄ₖ)²) over the kinds k of nₖ prompts, with lᵢ the lead without prompt i and l̄ₖ their mean.
    The interval is that of Student's t with Σ (nₖ − 1) degrees of freedom (Wolter, *Introduction to Variance Estimation*, chapter 4).

    Args:
        lead: value of a candidate less that of another one, over all prompts.
        without: lead without each prompt in turn, (n,).
        asked: kind of every prompt, int64, (n,), each of at least two.
        level: confidence level, in (0.5, 1).

    Example:
        >>> asked = torch.tensor([0, 0, 0, 0])
        >>> leads = torch.tensor([-0.3, -0.2, -0.2, -0.1], dtype=torch.float64)  # a mean of four values, without one of them
        >>> values = 4 * leads.mean() - 3 * leads
        >>> round(lead_bound(-0.2, leads, asked), 3), round(float(-0.2 + 2.353 * values.std() / 2), 3)  # as of Student's t
        (0.088, 0.088)
    """
    variance, freedom = 0.0, 0
    for kind in torch.unique(asked):
        own = without[asked == kind]
        variance += float((len(own) - 1) / len(own) * (own - own.mean()).square().sum())
        freedom += len(own) - 1
    return lead + float(stdtrit(freedom, level)) * math.sqrt(variance)


def expanded(tail: float, asked: Tensor) -> float:
    """Returns where in the bootstrap distribution the tail of this probability ends, Φ(√(n / (n − 1)) · t⁻¹(tail)).

    n is the number of prompts of the kind that has the fewest, and t has Σ (nₖ − 1) degrees of freedom over the kinds.

    Args:
        tail: probability, in (0, 0.5).
        asked: kind of every prompt, int64, (n,).

    Returns:
        Probability, less than ``tail``; 0 if there is only one prompt of a kind.

    Example:
        >>> round(expanded(0.025, torch.tensor([0, 1, 2]).repeat_interleave(8)), 4)
        0.0131
    """
    counts = Counter(asked.tolist())
    fewest = min(counts.values())
    if fewest < 2:
        return 0.0
    return float(ndtr(math.sqrt(fewest / (fewest - 1)) * stdtrit(len(asked) - len(counts), tail)))
