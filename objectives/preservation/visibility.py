"""Visibility: what people see of a source, given how far a merge's pictures have moved towards it.

Both functions were chosen on the readings of the demo world's probes, on groups of sources of which no result is reported
(``benchmarks.agreement``): parts of 0.3, 0.57, 0.76 and 0.85 of an effect were read as about 0, 0.45, 0.75 and 0.8 of the source.
"""

from __future__ import annotations

from torch import Tensor

TOLERATED = 0.5
"""Strange part of a merge's effect that is not discounted: other layouts of the same things have as much."""
HALVING = 4.0
"""Excess over ``TOLERATED`` at which a part counts half."""
_ODDS = 3.0


def visible(part: Tensor) -> Tensor:
    """Returns the share of a source that is seen, s² / (s² + 3·(1 − s)²): small parts of an effect are not seen.

    Args:
        part: part s of the source's effect, in [0, 1].

    Returns:
        Shares in [0, 1]; increasing, 0 for 0 and 1 for 1.

    Example:
        >>> import torch
        >>> visible(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)).round(decimals=3).tolist()
        [0.0, 0.036, 0.25, 0.75, 1.0]
    """
    seen = part.square()
    return seen / (seen + _ODDS * (1 - part).square())


def discount(strange: Tensor) -> Tensor:
    """Returns the factor on parts of effects where a merge also does what none of its sources does, in (0, 1].

    Args:
        strange: squared norm of what the sources' effects do not explain of the merge's effect, relative to the mean squared norm of the
            sources' effects, at least 0. A merge of sources at twice their strength has 2 to 6.

    Example:
        >>> import torch
        >>> discount(torch.tensor([0.2, 4.5])).tolist()
        [1.0, 0.5]
    """
    return 1 / (1 + (strange - TOLERATED).clamp(min=0) / HALVING)
