"""Preservation: how much of each source's effect survives in a merge, measured between base (0) and source alone (1)."""

from __future__ import annotations

import torch
from torch import Tensor

from objectives.objective import EMBEDDINGS, Baselines, Objective, Outcome, Pictures
from objectives.preservation.effects import Effects
from objectives.preservation.identifiable import counted
from objectives.preservation.shares import Moments, mean_shares, moments, shares


class PreservationObjective(Objective[Effects, Moments]):
    """Share of each source's effect that a candidate keeps: the mean of its shares on own and on joint prompts.

    The outcome has the values ``own`` and ``joint`` of each source.

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
        """Returns the effects of the sources."""
        return Effects.of(baselines)

    def measure(self, pictures: Pictures, reference: Effects) -> Moments:
        """Returns the statistics of a candidate."""
        return moments(pictures.features[EMBEDDINGS], reference)

    def compare(self, measurement: Moments, reference: Effects, counts: Tensor | None = None) -> Outcome:
        """Returns the shares, float64, (..., k); NaN for sources that do not count."""
        own, joint = shares(measurement, counts)
        mask, kept = counted(reference.left_out, reference.sources), mean_shares(own, joint)
        kept = kept if mask is None else torch.where(mask, kept, torch.nan)
        return Outcome(kept, counted=mask, by_source={"own": own, "joint": joint})
