"""Scales: how good a value of a metric is, on a scale of 0 to 1 that every term of the score has in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_WORST = 1e-6  # the score takes no factor of 0: a merge that a metric finds worthless still has a rank among its like


@dataclass(frozen=True)
class Scale:
    """Direction and bounds of a metric, as torchmetrics' classes declare them.

    Attributes:
        higher_is_better: whether larger values are better; None if that is not known.
        low: smallest possible value, ``plot_lower_bound``; None if there is none.
        high: largest possible value, ``plot_upper_bound``; None if there is none.
    """

    higher_is_better: bool | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, metric: object) -> Scale:
        """Returns the scale that the attributes of a metric or a function declare.

        Example:
            >>> def sharpness(pictures, prompts, references): ...
            >>> sharpness.higher_is_better = True
            >>> Scale.of(sharpness)
            Scale(higher_is_better=True, low=None, high=None)
        """
        higher = getattr(metric, "higher_is_better", None)
        low, high = (getattr(metric, f"plot_{side}_bound", None) for side in ("lower", "upper"))
        return cls(None if higher is None else bool(higher), None if low is None else float(low), None if high is None else float(high))

    @property
    def bounded(self) -> bool:
        """Whether both bounds are known, and differ."""
        return self.low is not None and self.high is not None and self.low < self.high


def quality(value: Tensor, scale: Scale, sources: float = 0.0) -> Tensor:
    """Returns how good values of a metric are, in (0, 1], (...) → (...).

    With both bounds known it is the position between the worst bound (0) and the best one (1). Otherwise it is relative to the mean m of
    the sources alone, and what is as good as they are counts in full: 1 − (m − v)/|m| for a value v of a metric where higher is better,
    1 / (1 + (v − m)/|m|) where lower is better. For positive values that is v/m and m/v. If m is 0, differences are in units of 1.

    Args:
        value: values of the metric.
        scale: direction and bounds of the metric; the direction must be known.
        sources: mean of the metric over the sources alone; not read if both bounds are known.

    Example:
        >>> similarity, variation = Scale(True, 0.0, 1.0), Scale(False, 0.0)
        >>> quality(torch.tensor([0.25, 1.0]), similarity).tolist()
        [0.25, 1.0]
        >>> quality(torch.tensor([50.0, 100.0, 200.0]), variation, sources=100.0).tolist()
        [1.0, 1.0, 0.5]
    """
    if scale.low is not None and scale.high is not None and scale.bounded:
        position = (value - scale.low) / (scale.high - scale.low)
        found = position if scale.higher_is_better else 1 - position
    else:
        worse = ((sources - value if scale.higher_is_better else value - sources) / (abs(sources) or 1.0)).clamp(min=0)
        found = 1 - worse if scale.higher_is_better else 1 / (1 + worse)
    return torch.as_tensor(found).clamp(_WORST, 1)
