"""Leakage: how much of a source is seen on prompts that ask for another one.

On the prompts of another source j, what the merge does beyond j alone is fitted by what j itself does there, since a merge may keep less
of it, and by a direction of the source k. Two directions are tried, and the greater part counts: what k alone does on these prompts,
without being asked, relative to its effect where it is asked for; and k's mean effect where it is asked for. Without a base, where less of
j is more of the others, k's mean effect alone is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.preservation.effects import NO_EFFECT, Effects
from objectives.preservation.visibility import visible

_RIDGE = 1e-4  # ridge relative to the squared norm of each direction


@dataclass(frozen=True)
class Leaks:
    """Statistics of one candidate per prompt, from which the leakage over any resample of the prompts follows, float64.

    K sources, of which k leaks into the prompts of j, and two directions of k: unasked, and asked for.

    Attributes:
        products: inner products ⟨u_j, u_j⟩, ⟨u_j, d⟩, ⟨d, d⟩, ⟨u_j, v⟩ and ⟨d, v⟩ of what j does, the direction d and what the merge does
            beyond j, 0 on prompts that do not ask for j, (K, K, 2, n, 5).
        scales: factor on the part of each direction, (K, K, 2).
        prompts: prompts of each source, bool, (K, n).
        asked: whether any prompt asks for each source, bool, (K,).
    """

    products: Tensor
    scales: Tensor
    prompts: Tensor
    asked: Tensor


def leaks(merged: Tensor, effects: Effects) -> Leaks:
    """Returns the statistics of a candidate that its leakage depends on.

    Args:
        merged: embeddings of the candidate's pictures, (n, d), for the baselines' prompts and noise.
        effects: embeddings of the baselines.

    Example:
        >>> base = torch.tensor([[0.0, 1.0]] * 2)
        >>> found = leaks(base, Effects(base, torch.tensor([[[0.6, 0.8]] * 2, [[0.6, 0.8]] * 2]), torch.tensor([0, 1])))
        >>> found.asked.tolist(), tuple(found.products.shape)
        ([True, True], (2, 2, 2, 2, 5))
    """
    count, n = effects.sources, len(merged)
    prompts = torch.stack([effects.asked == k for k in range(count)])
    products = torch.zeros(count, count, 2, n, 5, dtype=torch.float64)
    scales = torch.zeros(count, count, 2, dtype=torch.float64)
    asked = prompts.any(dim=1)
    for k in [k for k in range(count) if asked[k] and k not in effects.always]:
        wanted = (effects.alone[k] - effects.base)[prompts[k]].double()
        mean, size = wanted.mean(dim=0), float(wanted.square().sum(dim=1).mean())
        for j in range(count):
            if j != k and float(mean.square().sum()) >= NO_EFFECT:
                rows = prompts[j]
                products[k, j, :, rows], unasked = _products(merged[rows].double(), effects, k, j, rows, mean)
                scales[k, j] = torch.tensor([min(1.0, unasked / size), 1.0])
    return Leaks(products, scales, prompts, asked)


def _products(merged: Tensor, effects: Effects, source: int, other: int, rows: Tensor, mean: Tensor) -> tuple[Tensor, float]:
    """Returns the products on another source's prompts, (2, m, 5), and the mean squared norm of what the source does there unasked."""
    base = effects.base[rows].double()
    kept, done = (effects.alone[i, rows].double() - base for i in (other, source))
    beyond = merged - effects.alone[other, rows].double()
    if not effects.based:  # nothing is known of what the other source does by itself
        kept, done = torch.zeros_like(kept), torch.zeros_like(done)
    found = [
        torch.stack([(a * b).sum(dim=1) for a, b in ((kept, kept), (kept, d), (d, d), (kept, beyond), (d, beyond))], dim=1)
        for d in (done, mean.expand_as(kept))
    ]
    return torch.stack(found), float(done.square().sum(dim=1).mean()) if len(done) else 0.0


def leakage(found: Leaks, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns how much of each source is seen on the prompts of all others, (..., k), and of each single other one (column), (..., k, k).

    Visible shares, float64, in [0, 1]; NaN where they cannot be measured, and on the diagonal.

    Args:
        found: statistics of the candidate.
        counts: number of times each prompt counts, (..., n); None counts each once.

    Example:
        >>> base = torch.tensor([[0.0, 0.0, 1.0]] * 2)
        >>> alone = torch.tensor([[[0.0, 0.6, 0.8]] * 2, [[0.6, 0.0, 0.8]] * 2])
        >>> merged = torch.tensor([[0.0, 0.6, 0.8], [0.6, 0.6, 0.8]])
        >>> each, pairs = leakage(leaks(merged, Effects(base, alone, torch.tensor([0, 1]))))
        >>> each.round(decimals=2).tolist(), pairs.round(decimals=2).tolist()
        ([0.97, 0.0], [[nan, 0.97], [0.0, nan]])
    """
    weights = torch.ones(found.prompts.shape[1], dtype=torch.float64) if counts is None else counts.double()
    parts = _coefficients(torch.einsum("...n,kjanm->...kjam", weights, found.products), found.scales)
    prompts = torch.einsum("...n,jn->...j", weights, found.prompts.double()).unsqueeze(-2)
    prompts = prompts * ~torch.eye(len(found.prompts), dtype=torch.bool)
    total = prompts.sum(dim=-1)
    mean = (parts * prompts).sum(dim=-1) / total.clamp(min=1)
    each = visible(mean.clamp(0, 1)).where(found.asked & (total > 0), torch.nan)
    return each, visible(parts.clamp(0, 1)).where(found.asked[:, None] & (prompts > 0), torch.nan)


def _coefficients(products: Tensor, scales: Tensor) -> Tensor:
    """Returns the greater coefficient of each source's two directions in what a merge does beyond another one.

    (..., K, K, 2, 5) → (..., K, K). It solves a·(1 + λ)⟨u, u⟩ + b·⟨u, d⟩ = ⟨u, v⟩ and a·⟨u, d⟩ + b·(1 + λ)⟨d, d⟩ = ⟨d, v⟩ for b.
    """
    kept, mixed, direction, pull, push = products.unbind(dim=-1)
    kept, direction = (1 + _RIDGE) * kept + 1e-12, (1 + _RIDGE) * direction + 1e-12
    return (scales * (kept * push - mixed * pull) / (kept * direction - mixed.square())).amax(dim=-1)
