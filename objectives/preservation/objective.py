"""Preservation: how much of each source's effect survives in a merge, measured between base (0) and source alone (1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.objective import EMBEDDINGS, Baselines, Objective, Outcome, Pictures
from objectives.preservation.effects import Effects, others
from objectives.preservation.identifiable import counted
from objectives.preservation.leakage import leakage
from objectives.preservation.shares import Moments, mean_shares, moments, shares


@dataclass(frozen=True)
class PreservationStatistics:
    """Measurement of one candidate.

    Attributes:
        moments: statistics from which the shares follow.
        leakage: leakage of each source, float64, (k,), as returned by ``leakage``.
    """

    moments: Moments
    leakage: Tensor


class PreservationObjective(Objective[Effects, PreservationStatistics]):
    """Share of each source's effect that a candidate keeps: the mean of its shares on own and on joint prompts.

    The outcome has the values ``own``, ``joint`` and ``leakage`` of each source. Leakage does not influence the score and is not resampled.

    Example:
        >>> def pictures(*vectors):
        ...     return Pictures(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), {"embeddings": torch.tensor(vectors)})
        >>> base, first, second = ([0.0, 0.0, 1.0], [0.0, 0.6, 0.8], [0.6, 0.0, 0.8])
        >>> baselines = Baselines(
        ...     pictures(base, base), (pictures(first, first), pictures(second, second)), torch.tensor([0, 1]), torch.tensor([0, 1])
        ... )
        >>> objective = PreservationObjective()
        >>> effects = objective.reference(baselines)
        >>> outcome = objective.compare(objective.measure(pictures(first, base), effects), effects)
        >>> outcome.shares.round(decimals=3).tolist()
        [1.0, 0.0]
    """

    name = "preservation"
    version = 3
    needs = frozenset({EMBEDDINGS})

    def reference(self, baselines: Baselines) -> Effects:
        """Returns the effects, measured from the base's embeddings; without a base, from the mean embedding of the other sources."""
        alone = torch.stack([pictures.features[EMBEDDINGS] for pictures in baselines.alone])
        base = others(alone, baselines.asked) if baselines.base is None else baselines.base.features[EMBEDDINGS]
        based = baselines.base is not None
        always = baselines.always if based else frozenset()
        return Effects(base, alone, baselines.asked, based=based, left_out=baselines.left_out, always=always)

    def measure(self, pictures: Pictures, reference: Effects) -> PreservationStatistics:
        """Returns the statistics of a candidate."""
        merged = pictures.features[EMBEDDINGS]
        return PreservationStatistics(moments(merged, reference), leakage(merged, reference))

    def compare(self, measurement: PreservationStatistics, reference: Effects, counts: Tensor | None = None) -> Outcome:
        """Returns the shares, float64, (..., k); NaN for sources that do not count."""
        own, joint = shares(measurement.moments, counts)
        mask, kept = counted(reference.left_out, reference.sources), mean_shares(own, joint)
        kept = kept if mask is None else torch.where(mask, kept, torch.nan)
        return Outcome(kept, counted=mask, by_source={"own": own, "joint": joint, "leakage": measurement.leakage})
