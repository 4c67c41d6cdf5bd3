"""Leakage: how much of a source is seen on prompts that ask for another one."""

from __future__ import annotations

import torch
from torch import Tensor

from objectives.preservation.effects import NO_EFFECT, Effects
from objectives.preservation.visibility import visible

_RIDGE = 1e-4  # ridge relative to the squared norm of each direction


def leakage(merged: Tensor, effects: Effects) -> Tensor:
    """Returns how much of each source is seen on prompts that ask for another source, beyond what that one shows alone.

    On the prompts of another source j, what the merge does beyond j alone is fitted by what j itself does there, since a merge may keep
    less of it, and by a direction of the source k. Two directions are tried, and the greater part counts: what k alone does on these
    prompts, without being asked, relative to its effect where it is asked for; and k's mean effect where it is asked for. Without a base,
    where less of j is more of the others, k's mean effect alone is fitted.

    Args:
        merged: embeddings of the candidate's pictures, (n, d), for the baselines' prompts and noise.
        effects: embeddings of the baselines.

    Returns:
        Visible share of each source, float64, (k,), in [0, 1]; 0 for a source without own effect, and NaN if every prompt asks for this
        source, if none does, or if none asks for another one.

    Example:
        >>> base = torch.tensor([[0.0, 0.0, 1.0]] * 2)
        >>> alone = torch.tensor([[[0.0, 0.6, 0.8]] * 2, [[0.6, 0.0, 0.8]] * 2])
        >>> merged = torch.tensor([[0.0, 0.6, 0.8], [0.6, 0.6, 0.8]])  # on the prompt of the second source, the first one is seen, too
        >>> leakage(merged, Effects(base, alone, torch.tensor([0, 1]))).round(decimals=2).tolist()
        [0.97, 0.0]
    """
    return torch.tensor([_leakage(merged, effects, k) for k in range(effects.sources)], dtype=torch.float64)


def _leakage(merged: Tensor, effects: Effects, source: int) -> float:
    """Returns the leakage of one source."""
    own = effects.asked == source
    others = [j for j in range(effects.sources) if j != source and bool((effects.asked == j).any())]
    if not others or not bool(own.any()) or source in effects.always:
        return float("nan")
    wanted = effects.alone[source, own] - effects.base[own]
    mean = wanted.mean(dim=0)
    if float(mean.square().sum()) < NO_EFFECT:
        return 0.0
    size = float(wanted.square().sum(dim=1).mean())
    parts, counts = [], []
    for j in others:
        rows = effects.asked == j
        done, kept = (effects.alone[i, rows] - effects.base[rows] for i in (source, j))
        beyond = merged[rows] - effects.alone[j, rows]
        unasked = min(1.0, float(done.square().sum(dim=1).mean()) / size)
        if effects.based:
            parts.append(max(unasked * _part(beyond, kept, done), _part(beyond, kept, mean.expand_as(kept))))
        else:
            parts.append(float((beyond @ mean).mean() / mean.square().sum()))
        counts.append(int(rows.sum()))
    part = torch.tensor(parts, dtype=torch.float64) @ torch.tensor(counts, dtype=torch.float64) / sum(counts)
    return float(visible(part.clamp(0, 1)))


def _part(moved: Tensor, kept: Tensor, direction: Tensor) -> float:
    """Returns the coefficient of a direction in the movement, next to that of what the other source does; all (n, d)."""
    axes = torch.stack([kept, direction]).flatten(1).double()
    gram = axes @ axes.T
    gram += torch.diag(_RIDGE * gram.diagonal() + 1e-12)
    return float(torch.linalg.solve(gram, axes @ moved.flatten().double())[1])
