"""The scalar that the search maximises."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from objectives.preservation import Preservation

HALVING_LEVEL = 8.0


def score(sources: Sequence[Preservation], artifacts: float) -> float:
    """How much of the sources a merge keeps, the weakest first, discounted for damage.

    Args:
        sources: one ``Preservation`` a source.
        artifacts: artifact level, at least 0.

    Returns:
        In [0, 1]; a merge that changes nothing, or loses a source, scores 0.
    """
    return float(balance(torch.tensor([source.mean for source in sources], dtype=torch.float64))) * soundness(artifacts)


def balance(kept: Tensor) -> Tensor:
    """Square root of (smallest share × geometric mean of all), over the last axis: (..., k) → (...).

    Of two sources the weaker one counts three times as much as the other, so that sacrificing it does not pay. The minimum alone would
    compare shares that are not alike: of a character that a style repaints less can be seen than of the style, and a search for
    the best minimum gives up the style for more of the character than anyone sees.
    """
    return (kept.amin(dim=-1) * kept.prod(dim=-1) ** (1 / kept.shape[-1])).sqrt()


def soundness(artifacts: float) -> float:
    """What an artifact level leaves of a merge's worth: all of it at 0, half of it at ``HALVING_LEVEL``.

    A factor and not a price, so that among merges that keep little the sound ones do not overtake those that keep more, and with
    no level up to which damage is free, because a search finds such a level and stays just below it.
    """
    return HALVING_LEVEL / (HALVING_LEVEL + artifacts)
