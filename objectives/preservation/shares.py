"""Shares: how much of each source is seen in a merge.

All pictures of one prompt start from the same noise, so the *effect* of a source is a difference of two embeddings,
u_k = φ(source k alone) − φ(base), and the merge's effect is v = φ(merge) − φ(base). Over a group of prompts there are two
estimates of a source's part in it, and both are biased. The projection p_k = ⟨u_k, v⟩ / ‖u_k‖² credits sources with similar effects
for each other. The least-squares coefficient a_k in v ≈ Σ_k a_k·u_k does not, but it is low for a character that a style
repaints, because most of the character's visible effect then lies along the direction that both effects have in common. The
part of the effect is the geometric mean of p_k, p_k and a_k: it is 0 if either is 0 and 1 if both are 1. It is closer to the projection,
because repainting is more common than sources with similar effects.

A part of an effect is not what people see of a source: a merge moves a third of the way to what a source draws before anything of it is
seen, and a merge at twice the strength goes all the way and draws debris. So the part is discounted where much of the merge's effect is
none of the sources' (``discount``), and converted to the share that is seen (``visible``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.preservation.effects import NO_EFFECT, Effects
from objectives.preservation.visibility import discount, visible

_RIDGE = 1e-6  # ridge relative to the source's own squared effect; a source alone falls short of 1 by this amount


@dataclass(frozen=True)
class Moments:
    """Sufficient statistics of one candidate per prompt, from which the shares over any resample of the prompts follow.

    Attributes:
        gram: inner products ⟨u_k, u_l⟩ of the source effects, (n, k, k).
        pull: inner products ⟨u_k, v⟩ of source effects and merge effect, (n, k).
        power: squared norm ‖v‖² of the merge effect, (n,).
        groups: prompts that each source's own share is measured on, and in the last row the joint prompts, bool, (k + 1, n).
    """

    gram: Tensor
    pull: Tensor
    power: Tensor
    groups: Tensor


def moments(merged: Tensor, effects: Effects) -> Moments:
    """Returns the statistics of a candidate that its shares depend on, in float64.

    Args:
        merged: embeddings of the candidate's pictures, float32, (n, d), for the baselines' prompts and noise.
        effects: embeddings of the baselines.

    Example:
        >>> effects = Effects(torch.tensor([[0.0, 1.0]]), torch.tensor([[[0.6, 0.8]]]), torch.tensor([0]))
        >>> found = moments(torch.tensor([[0.6, 0.8]]), effects)
        >>> found.gram.round(decimals=3).tolist(), found.pull.round(decimals=3).tolist()
        ([[[0.4]]], [[0.4]])
    """
    gram, pull, power = [], [], []
    for i in range(len(merged)):  # prompt by prompt to limit memory in double precision
        base = effects.base[i].double()
        u, v = effects.alone[:, i].double() - base, merged[i].double() - base
        gram.append(u @ u.T)
        pull.append(u @ v)
        power.append(v @ v)
    return Moments(torch.stack(gram), torch.stack(pull), torch.stack(power), effects.groups)


def shares(reduced: Moments, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns every source's share on its own prompts and on the joint prompts, each (..., k), clipped to [0, 1].

    A source's own share is NaN if no prompt asks for it alone, and the joint shares are NaN if no prompt asks for all sources.

    Args:
        reduced: moments of the candidate.
        weights: number of times each prompt counts, (..., n); None counts each once. A bootstrap passes all resamples at once.

    Returns:
        Own and joint shares, float64.

    Example:
        >>> effects = Effects(torch.tensor([[0.0, 1.0]] * 3), torch.tensor([[[0.6, 0.8]] * 3]), torch.tensor([0, 0, -1]))
        >>> merged = torch.tensor([[0.6, 0.8], [0.0, 1.0], [0.0, 1.0]])
        >>> own, joint = shares(moments(merged, effects))
        >>> own.round(decimals=3).tolist(), joint.tolist()  # a half of the effect is seen as a quarter of the source
        ([0.25], [0.0])
    """
    sources = reduced.pull.shape[1]
    counts = torch.ones(len(reduced.power)) if weights is None else weights
    solved = _group_shares(reduced, counts.unsqueeze(-2) * reduced.groups)
    return solved[..., :sources, :].diagonal(dim1=-2, dim2=-1), solved[..., sources, :]


def mean_shares(own: Tensor, joint: Tensor) -> Tensor:
    """Returns the mean of own and joint shares, ignoring NaN: (..., k), (..., k) → (..., k).

    Example:
        >>> mean_shares(torch.tensor([0.25, 0.5]), torch.tensor([0.75, torch.nan])).tolist()
        [0.5, 0.5]
    """
    return torch.stack([own, joint]).nanmean(dim=0)


def _group_shares(reduced: Moments, counts: Tensor) -> Tensor:
    """Returns the visible shares over the prompts that count; counts (..., n) → (..., k).

    A source without effect has share 0. The share is NaN if no prompt counts.
    """
    counts = counts.double()
    total = counts.sum(dim=-1, keepdim=True)
    gram = torch.einsum("...n,nkl->...kl", counts, reduced.gram)
    pull = torch.einsum("...n,nk->...k", counts, reduced.pull)
    power = gram.diagonal(dim1=-2, dim2=-1)
    seen = power > NO_EFFECT * total
    pull = pull * seen
    solved = _coefficients(gram, pull, seen)
    parts = ((pull / torch.where(seen, power, 1)).clamp(0, 1) ** 2 * solved.clamp(0, 1)) ** (1 / 3)
    explained = 2 * (solved * pull).sum(dim=-1) - torch.einsum("...k,...kl,...l->...", solved, gram, solved)
    strange = (torch.einsum("...n,n->...", counts, reduced.power) - explained).clamp(min=0)
    mean_power = (power * seen).sum(dim=-1) / seen.sum(dim=-1).clamp(min=1)
    ratio = strange / torch.where(mean_power > 0, mean_power, 1)
    return torch.where(total > 0, visible(parts * discount(ratio).unsqueeze(-1)), torch.nan)


def _coefficients(gram: Tensor, pull: Tensor, seen: Tensor) -> Tensor:
    """Returns the coefficients argmin_a Σᵢ cᵢ(‖vᵢ − Σ_k a_k·u_kᵢ‖² + λ·Σ_k a_k²·‖u_kᵢ‖²), (..., k).

    The ridge is scaled by each source's own effect, so that a weak source can reach 1 beside a strong one. Two sources with identical
    effects share the coefficient; a source without effect has the coefficient 0.
    """
    power = gram.diagonal(dim1=-2, dim2=-1)
    masked = gram * (seen.unsqueeze(-1) & seen.unsqueeze(-2)) + torch.diag_embed(torch.where(seen, _RIDGE * power, 1))
    solved: Tensor = torch.linalg.solve(masked, pull.unsqueeze(-1)).squeeze(-1)
    return solved
