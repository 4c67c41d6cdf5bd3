"""Drift: how far a merge changes pictures that ask for no source."""

from __future__ import annotations

import torch
from torch import Tensor

from objectives.preservation.effects import NO_EFFECT, Effects


def drift(merged: Tensor, reference: Tensor, effects: Effects) -> float | None:
    """Returns the mean squared distance of a merge from its reference, relative to what the sources do where they are asked for.

    0 is no change at all, 1 as much as a source changes on its own prompts. There is none if no source that counts changes anything there.

    Args:
        merged: embeddings of the merge's pictures on prompts without a trigger, unit vectors, (m, d).
        reference: embeddings of what should be drawn there, for the same prompts and noise, (m, d).
        effects: embeddings of base and sources on the prompts that ask for them.

    Example:
        >>> base, alone = torch.tensor([[0.0, 1.0]] * 2), torch.tensor([[[1.0, 0.0]] * 2, [[1.0, 0.0]] * 2])
        >>> found = drift(torch.tensor([[0.6, 0.8]]), torch.tensor([[0.0, 1.0]]), Effects(base, alone, torch.tensor([0, 1])))
        >>> f"{found:.2f}"
        '0.20'
    """
    own = {k: effects.asked == k for k in range(effects.sources) if k not in effects.left_out}
    each = [_square(effects.alone[k][rows], effects.base[rows]) for k, rows in own.items() if bool(rows.any())]
    scale = float(torch.stack(each).mean()) if each else 0.0
    return None if scale < NO_EFFECT else float(_square(merged, reference)) / scale


def _square(one: Tensor, other: Tensor) -> Tensor:
    """Returns the mean squared distance of embeddings, (m, d)."""
    return (one - other).double().square().sum(dim=1).mean()
