"""What a difference between candidates is worth: a paired bootstrap over prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.preservation import JOINT, Moments, shares


@dataclass(frozen=True)
class Interval:
    """A value with a bootstrap confidence interval."""

    value: float
    low: float
    high: float


def resamples(asked: Tensor, *, count: int, seed: int) -> Tensor:
    """Bootstrap counts, (count, n): every kind of prompt is resampled within itself, so no kind is ever empty.

    Args:
        asked: kind of every prompt, (n,).
        count: resamples.
        seed: of the generator.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.zeros(count, len(asked))
    for kind in asked.unique():
        members = (asked == kind).nonzero()[:, 0]
        picks = members[torch.randint(len(members), (count, len(members)), generator=generator)]
        drawn.scatter_add_(1, picks, torch.ones_like(picks, dtype=drawn.dtype))
    return drawn


def weakest_share(candidate: Moments, counts: Tensor | None = None) -> float:
    """Minimum over sources of the mean of own and joint share."""
    own, joint = shares(candidate, counts)
    each = own if not bool((candidate.asked == JOINT).any()) else (own + joint) / 2
    return float(each.min())


def bootstrap(candidates: Sequence[Moments], *, count: int = 1000, seed: int = 0) -> Tensor:
    """The weakest share of every candidate in every resample, (candidates, count); all candidates see the same resamples."""
    drawn = resamples(candidates[0].asked, count=count, seed=seed)
    return torch.tensor([[weakest_share(c, counts) for counts in drawn] for c in candidates])


def interval(value: float, samples: Tensor, level: float = 0.95) -> Interval:
    """Percentile interval of bootstrap samples, (count,)."""
    low, high = torch.quantile(samples, torch.tensor([(1 - level) / 2, (1 + level) / 2])).tolist()
    return Interval(value, low, high)


def probability_better(a: Tensor, b: Tensor) -> float:
    """Share of the resamples in which a beats b; both (count,), from the same ``bootstrap`` call."""
    return float((a > b).float().mean())
