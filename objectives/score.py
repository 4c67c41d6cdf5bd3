"""The scalar that the search maximises."""

from __future__ import annotations

from collections.abc import Sequence

from objectives.preservation import Preservation

HALVING_LEVEL = 8.0


def score(sources: Sequence[Preservation], artifacts: float) -> float:
    """The weakest source's preservation, discounted for damage.

    The minimum, never the mean: a mean is raised by sacrificing the weakest source. A merge that changes nothing scores 0.

    Args:
        sources: one ``Preservation`` a source.
        artifacts: artifact level, at least 0.

    Returns:
        In [0, 1].
    """
    return min(source.mean for source in sources) * soundness(artifacts)


def soundness(artifacts: float) -> float:
    """What an artifact level leaves of a merge's worth: all of it at 0, half of it at ``HALVING_LEVEL``.

    A factor and not a price, so that among merges that keep little the sound ones do not overtake those that keep more, and with
    no level up to which damage is free, because a search finds such a level and stays just below it.
    """
    return HALVING_LEVEL / (HALVING_LEVEL + artifacts)
