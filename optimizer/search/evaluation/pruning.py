"""Pruning: a candidate that clearly lags behind the best one on half of the prompts is not drawn on the other half.

This is a race (Maron and Moore, *Hoeffding Races*, 1993) with one check. Both candidates draw the same prompts from the same noise, so that
what makes a prompt hard for both cancels in their difference, whose error is estimated by the jackknife over the prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from objectives import LEVEL, lead_bound
from optimizer.search.labels import is_alone
from studies.records import Evaluation, FirstHalf, TrialRecord

_FEWEST = 2  # prompts of a kind, without which nothing is known of chance


def first_half(asked: Tensor) -> Tensor | None:
    """Returns the first half of the prompts of each kind, as indices in ascending order, int64, (m,); None if that is too few of a kind.

    Args:
        asked: kind of every prompt, int64, (n,).

    Example:
        >>> first_half(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])).tolist()
        [0, 1, 4, 5]
        >>> first_half(torch.tensor([0, 0, 1, 1]))
    """
    members = [(asked == kind).nonzero()[:, 0] for kind in torch.unique(asked)]
    halves = [prompts[: math.ceil(len(prompts) / 2)] for prompts in members]
    if min(map(len, halves)) < _FEWEST:
        return None
    return torch.cat(halves).sort().values


def best_of(records: Iterable[TrialRecord]) -> Evaluation | None:
    """Returns the evaluation of the best merge so far; None if there is none that others can be compared with.

    Merges that miss a constraint, that were pruned, or that were drawn by a version that measured no first half do not count.

    Args:
        records: trials that the candidate's proposal has learnt from.
    """
    merges = [r.evaluation for r in records if r.evaluation and r.evaluation.feasible and not is_alone(r.label)]
    return max((found for found in merges if found.first_half and not found.pruned), key=lambda found: found.score, default=None)


def lags(found: FirstHalf, best: FirstHalf, asked: Tensor) -> bool:
    """Returns whether a candidate is behind the best one by more than chance gives with a probability of 5 %.

    Args:
        found: score of the candidate.
        best: score of the best one on the same prompts.
        asked: kind of each of these prompts, int64, (m,).

    Example:
        >>> asked = torch.tensor([0, 0, 1, 1])
        >>> best = FirstHalf(score=0.6, without=(0.5, 0.7, 0.5, 0.7))
        >>> lags(FirstHalf(score=0.3, without=(0.2, 0.4, 0.2, 0.4)), best, asked)  # as much behind on every prompt
        True
        >>> lags(FirstHalf(score=0.5, without=(0.9, 0.1, 0.9, 0.1)), best, asked)
        False
    """
    lead = torch.tensor(found.without, dtype=torch.float64) - torch.tensor(best.without, dtype=torch.float64)
    return lead_bound(found.score - best.score, lead, asked, LEVEL) < 0


def scale(best: Evaluation) -> float:
    """Returns by what the score of a pruned candidate is multiplied: how much harder the other half of the prompts is for the best one.

    So the score of a pruned candidate estimates that on all prompts (a ratio estimator), and is below that of the best one.
    """
    assert best.first_half is not None
    return best.score / best.first_half.score if best.first_half.score > 0 else 1.0
