"""The score that the search maximizes: the shares that a merge keeps of its sources, the weakest first, times the objectives' factors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from objectives.objective import Outcome

Outcomes = Mapping[str, Outcome]
"""Outcomes of one candidate by the name of the objective."""


def score(outcomes: Outcomes, priorities: Sequence[float] = ()) -> Tensor:
    """Returns the score: sqrt(smallest share × geometric mean of the shares) × product of the factors.

    Sources that do not count, because an objective cannot measure them, are left out of the shares.

    Args:
        outcomes: outcomes of one candidate, at least one of them with shares.
        priorities: priority of each source, as of ``balance``; empty if all are equal.

    Returns:
        Scores in [0, 1], (...); 0 if the merge loses a source or changes nothing.

    Raises:
        ValueError: no objective measures shares, no source counts, or a factor is outside (0, 1].

    Example:
        >>> kept = Outcome(shares=torch.tensor([0.5, 0.5], dtype=torch.float64))
        >>> float(score({"preservation": kept, "damage": Outcome(factor=torch.tensor(0.5))}))
        0.25
    """
    total = balance(counted_shares(outcomes), counted_priorities(outcomes, priorities))
    for name, outcome in outcomes.items():
        if outcome.factor is None:
            continue
        if bool(((outcome.factor <= 0) | (outcome.factor > 1)).any()):
            raise ValueError(f"the objective {name} has a factor outside (0, 1]: {outcome.factor.flatten()[:4].tolist()}")
        total = total * outcome.factor
    return total


def combined_shares(outcomes: Outcomes) -> Tensor:
    """Returns the share of each source that the candidate keeps: the geometric mean over the objectives that measure shares.

    With the geometric mean, a source that one of them finds lost is lost.

    Args:
        outcomes: outcomes of one candidate.

    Returns:
        Shares in [0, 1], (..., k).

    Raises:
        ValueError: no objective measures shares.

    Example:
        >>> style, layout = (Outcome(shares=torch.tensor(shares)) for shares in ([0.25, 0.0], [1.0, 1.0]))
        >>> combined_shares({"style": style, "layout": layout}).tolist()
        [0.5, 0.0]
    """
    found = [outcome.shares for outcome in outcomes.values() if outcome.shares is not None]
    if not found:
        raise ValueError(f"no objective measures what is kept of each source: {', '.join(outcomes) or 'the table is empty'}")
    return found[0] if len(found) == 1 else reduce(torch.mul, found) ** (1 / len(found))


def counted_shares(outcomes: Outcomes) -> Tensor:
    """Returns the combined shares of the sources that count for all objectives, (..., k') with k' ≤ k.

    Args:
        outcomes: outcomes of one candidate.

    Raises:
        ValueError: no objective measures shares, or no source counts.

    Example:
        >>> kept = Outcome(shares=torch.tensor([0.25, torch.nan]), counted=torch.tensor([True, False]))
        >>> counted_shares({"preservation": kept}).tolist()
        [0.25]
    """
    shares, mask = combined_shares(outcomes), _counted(outcomes)
    if mask is None:
        return shares
    if not bool(mask.any()):
        raise ValueError("no source counts in the score")
    return shares[..., mask]


def counted_priorities(outcomes: Outcomes, priorities: Sequence[float]) -> tuple[float, ...]:
    """Returns the priorities of the sources that count for all objectives; empty if there are no priorities."""
    mask = _counted(outcomes)
    if mask is None or not priorities:
        return tuple(priorities)
    return tuple(each for each, counts in zip(priorities, mask.tolist(), strict=True) if counts)


def _counted(outcomes: Outcomes) -> Tensor | None:
    """Returns whether each source counts for all objectives, bool, (k,); None if all of them do."""
    masks = [outcome.counted for outcome in outcomes.values() if outcome.counted is not None]
    return reduce(torch.logical_and, masks) if masks else None


def balance(shares: Tensor, priorities: Sequence[float] = ()) -> Tensor:
    """Returns sqrt(smallest share × geometric mean of the shares) over the last dimension, weighted by the priorities of the sources.

    With two sources the weaker one has three times the weight of the other, so that giving it up does not pay off. The minimum alone
    would compare shares that are not comparable: less of a character that a style repaints is visible than of the style. A search for the
    best minimum gives up the style for an invisible gain in the character.

    With priorities w, share s_k enters the minimum as s_k^(w_k / max w) and the mean with the exponent w_k / Σw. Both exponents of a source
    rise with its priority, those of all others fall, and a share of lower priority looks larger to the minimum. So the factor by which the
    score falls with a source, and what a gain of another source must be to make up for it, never become smaller when its priority rises.

    Args:
        shares: share of each source, in [0, 1], (..., k).
        priorities: priority of each source, greater than 0, k numbers of which only the ratios matter; empty if all are equal.

    Returns:
        Balance of the shares, in [0, 1], (...); 0 if and only if a share is 0.

    Raises:
        ValueError: there is not one finite priority above 0 for each source.

    Example:
        >>> balance(torch.tensor([[0.5, 0.5], [0.25, 1.0], [0.0, 1.0]], dtype=torch.float64)).round(decimals=4).tolist()
        [0.5, 0.3536, 0.0]
        >>> balance(torch.tensor([[0.25, 1.0], [1.0, 0.25]], dtype=torch.float64), (2, 1)).round(decimals=4).tolist()
        [0.315, 0.5612]
    """
    if priorities and not (len(priorities) == shares.shape[-1] and all(0 < priority < math.inf for priority in priorities)):
        raise ValueError(f"{shares.shape[-1]} shares need as many finite priorities above 0, not {tuple(priorities)}")
    if len(set(priorities)) <= 1:
        return (shares.amin(dim=-1) * shares.prod(dim=-1) ** (1 / shares.shape[-1])).sqrt()
    weights = torch.tensor(priorities, dtype=torch.float64, device=shares.device)
    weakest = (shares ** (weights / weights.max())).amin(dim=-1)
    return (weakest * (shares ** (weights / weights.sum())).prod(dim=-1)).sqrt()
