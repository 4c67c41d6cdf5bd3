"""Leakage: how much of a source is seen on prompts that ask for another one."""

from __future__ import annotations

import torch
from torch import Tensor

from objectives.objective import JOINT
from objectives.preservation.effects import NO_EFFECT, Effects


def leakage(merged: Tensor, effects: Effects) -> Tensor:
    """Returns the mean movement along each source's mean own effect on prompts that ask for another source.

    The movement that the other source shows alone is subtracted. The result is in units of the own effect and at least 0. It is 0 for
    a source without own effect, and NaN if no prompt asks for another source or none for this one.

    Args:
        merged: embeddings of the candidate's pictures, (n, d), for the baselines' prompts and noise.
        effects: embeddings of the baselines.

    Returns:
        Leakage of each source, float64, (k,).

    Example:
        >>> base = torch.tensor([[0.0, 0.0, 1.0]] * 2)
        >>> alone = torch.tensor([[[0.0, 0.6, 0.8]] * 2, [[0.6, 0.0, 0.8]] * 2])
        >>> merged = torch.tensor([[0.0, 0.6, 0.8], [0.6, 0.6, 0.8]])  # on the prompt of the second source, the first one is seen, too
        >>> leakage(merged, Effects(base, alone, torch.tensor([0, 1]))).round(decimals=2).tolist()
        [0.9, 0.0]
    """
    return torch.tensor([_leakage(merged, effects, k) for k in range(effects.sources)], dtype=torch.float64)


def _leakage(merged: Tensor, effects: Effects, source: int) -> float:
    """Returns the leakage of one source."""
    foreign = (effects.asked != source) & (effects.asked != JOINT)
    own = effects.asked == source
    if not bool(foreign.any()) or not bool(own.any()):
        return float("nan")
    axis = (effects.alone[source, own] - effects.base[own]).mean(dim=0)
    if float(axis.square().sum()) < NO_EFFECT:
        return 0.0
    expected = effects.alone[effects.asked[foreign], foreign.nonzero()[:, 0]]
    moved = (merged[foreign] - expected) @ axis / axis.square().sum()
    return float(moved.mean().clamp(min=0))
