"""Separation: no source is seen where another one is asked for."""

from __future__ import annotations

from torch import Tensor

from objectives.objective import EMBEDDINGS, Baselines, Objective, Outcome, Pictures
from objectives.preservation.effects import Effects
from objectives.preservation.identifiable import counted
from objectives.preservation.leakage import Leaks, leakage, leaks


class SeparationObjective(Objective[Effects, Leaks]):
    """How well the sources stay apart: it discounts the score where one is seen on prompts that ask for another one.

    The factor is 1 / (1 + leakage) of the source that leaks most. The outcome has the value ``leakage`` of each source, its mean over the
    prompts of the others, in [0, 1]. It is 0 for a source without own effect and for one that every prompt asks for, and NaN if no prompt
    asks for this source, or none for another one. Its value for each pair is how much of a source is seen on the prompts of one other.

    Example:
        >>> import torch
        >>> def pictures(*vectors):
        ...     return Pictures(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), {"embeddings": torch.tensor(vectors)})
        >>> base, first, second = ([0.0, 0.0, 1.0], [0.0, 0.6, 0.8], [0.6, 0.0, 0.8])
        >>> baselines = Baselines(
        ...     pictures(base, base), (pictures(first, first), pictures(second, second)), torch.tensor([0, 1]), torch.tensor([0, 1])
        ... )
        >>> objective = SeparationObjective()
        >>> effects = objective.reference(baselines)
        >>> merged = pictures(first, [0.6, 0.6, 0.8])  # on the prompt of the second source, the first one is seen, too
        >>> outcome = objective.compare(objective.measure(merged, effects), effects)
        >>> outcome.by_source["leakage"].round(decimals=2).tolist(), round(float(outcome.factor), 2)
        ([0.97, 0.0], 0.51)
    """

    name = "separation"
    version = 1
    needs = frozenset({EMBEDDINGS})

    def reference(self, baselines: Baselines) -> Effects:
        """Returns the effects of the sources."""
        return Effects.of(baselines)

    def measure(self, pictures: Pictures, reference: Effects) -> Leaks:
        """Returns the statistics of a candidate."""
        return leaks(pictures.features[EMBEDDINGS], reference)

    def compare(self, measurement: Leaks, reference: Effects, counts: Tensor | None = None) -> Outcome:
        """Returns factor and leakage, float64, (...) and (..., k)."""
        found, pairs = leakage(measurement, counts)
        mask = counted(reference.left_out, reference.sources)
        seen = found if mask is None else found[..., mask]
        return Outcome(factor=1 / (1 + seen.nan_to_num(nan=0.0).amax(dim=-1)), by_source={"leakage": found}, by_pair={"leakage": pairs})
