"""The scalar that the search maximises."""

from __future__ import annotations

from collections.abc import Sequence

from objectives.preservation import Preservation

ARTIFACT_ALLOWANCE = 0.5
ARTIFACT_PRICE = 0.2


def score(sources: Sequence[Preservation], artifacts: float) -> float:
    """The weakest source's preservation, less a price for damage.

    The minimum, never the mean: a mean is raised by sacrificing the weakest source. A merge that changes nothing scores 0.

    Args:
        sources: one ``Preservation`` a source.
        artifacts: artifact level; what exceeds ``ARTIFACT_ALLOWANCE`` costs ``ARTIFACT_PRICE`` a unit.

    Returns:
        At most 1.
    """
    return min(source.mean for source in sources) - artifact_price(artifacts)


def artifact_price(artifacts: float) -> float:
    """What an artifact level costs, in units of preservation: nothing up to ``ARTIFACT_ALLOWANCE``."""
    return ARTIFACT_PRICE * max(0.0, artifacts - ARTIFACT_ALLOWANCE)
