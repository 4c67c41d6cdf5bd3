"""Statistical significance of differences between candidates, by a paired bootstrap over prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.preservation import Moments, shares


@dataclass(frozen=True)
class Interval:
    """A value with a bootstrap confidence interval."""

    value: float
    low: float
    high: float


def resamples(asked: Tensor, *, count: int, seed: int) -> Tensor:
    """Returns bootstrap counts, (count, n). Resampling is stratified by the kind of prompt, so that no kind is empty.

    Args:
        asked: kind of every prompt, (n,).
        count: number of resamples.
        seed: seed of the random generator.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros(count, len(asked))
    for kind in sorted(set(asked.tolist())):
        members = (asked == kind).nonzero()[:, 0]
        picks = members[torch.randint(len(members), (count, len(members)), generator=generator)]
        drawn.scatter_add_(1, picks, torch.ones_like(picks, dtype=drawn.dtype))
    return drawn


def kept(candidate: Moments, counts: Tensor | None = None) -> Tensor:
    """Returns the preserved share of every source, the mean of own and joint share, over counts (..., n): (..., k)."""
    own, joint = shares(candidate, counts)
    return torch.stack([own, joint]).nanmean(dim=0)


def bootstrap(candidates: Sequence[Moments], *, count: int = 1000, seed: int = 0) -> Tensor:
    """Returns the preserved share of every source in every resample, (candidates, count, k), with identical resamples for all candidates.

    Args:
        candidates: moments of the candidates, measured on identical prompts.
        count: number of resamples.
        seed: seed of the resampling.
    """
    asked = candidates[0].asked
    if not all(torch.equal(candidate.asked, asked) for candidate in candidates):
        raise ValueError("the candidates were measured on different prompts")
    drawn = resamples(asked, count=count, seed=seed)
    return torch.stack([kept(candidate, drawn) for candidate in candidates])


def interval(value: float, samples: Tensor, level: float = 0.95) -> Interval:
    """Returns the percentile interval of bootstrap samples, (count,), extended to contain the value.

    The extension is needed because resampling biases a minimum downwards.
    """
    tail = (1 - level) / 2
    low, high = torch.quantile(samples, torch.tensor([tail, 1 - tail], dtype=samples.dtype)).tolist()
    return Interval(value, min(low, value), max(high, value))


def probability_better(a: Tensor, b: Tensor) -> float:
    """Returns the fraction of resamples in which a exceeds b; both (count,), from one ``bootstrap`` call. Ties do not count."""
    return float((a > b).double().mean())
