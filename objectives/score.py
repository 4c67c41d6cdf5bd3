"""The scalar objective that the search maximizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from objectives.preservation import Preservation

HALVING_LEVEL = 8.0


def score(sources: Sequence[Preservation], artifacts: float) -> float:
    """Returns the score of a merge: sqrt(minimum share × geometric mean of the shares) × soundness.

    The share of a source is its ``Preservation.mean``.

    Args:
        sources: one ``Preservation`` per source.
        artifacts: artifact level, at least 0.

    Returns:
        Score in [0, 1]; 0 if the merge loses a source or changes nothing.
    """
    return float(balance(torch.tensor([source.mean for source in sources], dtype=torch.float64))) * soundness(artifacts)


def balance(kept: Tensor) -> Tensor:
    """Returns sqrt(minimum share × geometric mean of the shares) over the last axis: (..., k) → (...).

    With two sources the weaker one has three times the weight of the other, so that giving it up does not pay off. The minimum alone
    would compare shares that are not comparable: less of a character that a style repaints is visible than of the style. A search for the
    best minimum gives up the style for an invisible gain in the character.
    """
    return (kept.amin(dim=-1) * kept.prod(dim=-1) ** (1 / kept.shape[-1])).sqrt()


def soundness(artifacts: float) -> float:
    """Returns the factor in (0, 1] that an artifact level leaves of the score: 1 at level 0, 0.5 at ``HALVING_LEVEL``.

    It is a factor and not a subtracted penalty, so that clean merges with low shares do not overtake merges with higher shares. There is no
    tolerance level without penalty, because the search would find merges just below it.
    """
    return HALVING_LEVEL / (HALVING_LEVEL + artifacts)
