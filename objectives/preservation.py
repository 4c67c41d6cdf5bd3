"""Preservation: how much of each source's effect survives in a merge, measured between base (0) and source alone (1).

All pictures of one prompt start from the same noise, so the *effect* of a source is a difference of two embeddings,
u_k = φ(source k alone) − φ(base), and the merge's effect is v = φ(merge) − φ(base). Over a group of prompts there are two
ways to read a source's share off them, and both err: the projection p_k = ⟨u_k, v⟩ / ‖u_k‖² credits sources whose effects look
alike for each other, and the least-squares coefficient a_k in v ≈ Σ_k a_k·u_k, which does not, is low for a character that a style
repaints, since most of what is seen of it then lies along what both effects have in common. The share is the geometric mean of
p_k, p_k and a_k: 0 where either is 0, 1 where both are, and nearer the projection, because paint is commoner than likeness.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

JOINT = -1
_RIDGE = 1e-6  # of the effect itself: what a source alone falls short of 1
_FLOOR = 1e-4  # squared distance between unit vectors below which a source has no effect


@dataclass(frozen=True)
class Effects:
    """What the baselines say.

    Attributes:
        base: embeddings of the base's pictures, unit vectors, (n, d).
        alone: embeddings of each source's pictures, (k, n, d).
        asked: for every prompt the index of the source that it asks for, or ``JOINT`` for all of them, (n,).
    """

    base: Tensor
    alone: Tensor
    asked: Tensor

    def __post_init__(self) -> None:
        n, d = self.base.shape
        if self.alone.shape[1:] != (n, d) or self.asked.shape != (n,):
            raise ValueError(
                f"shapes do not match: base {tuple(self.base.shape)}, alone {tuple(self.alone.shape)}, asked {tuple(self.asked.shape)}"
            )

    @property
    def sources(self) -> int:
        """Number of sources."""
        return len(self.alone)


@dataclass(frozen=True)
class Moments:
    """One candidate's sufficient statistics per prompt, from which shares over any resample of prompts follow.

    Attributes:
        gram: ⟨u_k, u_l⟩, (n, k, k).
        pull: ⟨u_k, v⟩, (n, k).
        asked: as in ``Effects``, (n,).
    """

    gram: Tensor
    pull: Tensor
    asked: Tensor


@dataclass(frozen=True)
class Preservation:
    """Shares of one source's effect, 0 = as in the base, 1 = as in the source alone.

    Attributes:
        own: on prompts that ask for this source only.
        joint: on prompts that ask for all sources.
        leakage: movement along this source's effect on prompts that ask for others only, 1 = its own effect; NaN where no prompt
            asks for others.
    """

    own: float
    joint: float
    leakage: float

    @property
    def mean(self) -> float:
        """Mean of ``own`` and ``joint``, or the one that was measured; a ValueError where neither was."""
        seen = [share for share in (self.own, self.joint) if share == share]
        if not seen:
            raise ValueError("no prompt asks for this source")
        return sum(seen) / len(seen)


def others(alone: Tensor, asked: Tensor) -> Tensor:
    """What stands for a base where there is none: of every prompt, the mean of what the sources that it does not ask for show.

    So a source counts as lost where a merge draws its own prompts as the others do, and as kept where it draws them as that source does.

    Args:
        alone: embeddings of each source's pictures, (k, n, d), k ≥ 2.
        asked: for every prompt the index of the source that it asks for, (n,); one that asks for all has nothing to be measured from.

    Returns:
        (n, d); of two sources a unit vector, of more the mean of unit vectors.

    Raises:
        ValueError: a prompt asks for all sources.
    """
    if bool((asked == JOINT).any()):
        raise ValueError("without a base, prompts ask for one source each")
    k, n, _ = alone.shape
    own = alone[asked, torch.arange(n, device=asked.device)]
    return (alone.sum(dim=0) - own) / (k - 1)


def moments(merged: Tensor, effects: Effects) -> Moments:
    """Reduce a candidate's embeddings (n, d) to what the shares need."""
    gram, pull = [], []
    for i in range(len(merged)):  # prompt by prompt: in double precision all of them at once would take much memory
        base = effects.base[i].double()
        u, v = effects.alone[:, i].double() - base, merged[i].double() - base
        gram.append(u @ u.T)
        pull.append(u @ v)
    return Moments(torch.stack(gram), torch.stack(pull), effects.asked)


def preservation(merged: Tensor, effects: Effects) -> list[Preservation]:
    """Score one candidate.

    Args:
        merged: embeddings of its pictures, (n, d), same prompts and noise as the baselines'.
        effects: the baselines.

    Returns:
        One ``Preservation`` a source, in order.
    """
    reduced = moments(merged, effects)
    own, joint = shares(reduced)
    return [Preservation(float(own[k]), float(joint[k]), _leakage(merged, effects, k)) for k in range(effects.sources)]


def shares(reduced: Moments, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Shares of every source on its own prompts and on the joint ones, each (..., k), clipped to [0, 1].

    Args:
        reduced: the candidate's moments.
        weights: how often every prompt counts, (..., n); None counts each once. A bootstrap passes all its resamples at once.
    """
    sources = reduced.pull.shape[1]
    groups = torch.stack([reduced.asked == group for group in (*range(sources), JOINT)])
    counts = torch.ones(len(reduced.asked)) if weights is None else weights
    solved = _group_shares(reduced, counts.unsqueeze(-2) * groups)
    return solved[..., :sources, :].diagonal(dim1=-2, dim2=-1), solved[..., sources, :]


def _group_shares(reduced: Moments, counts: Tensor) -> Tensor:
    """Geometric mean of projection, twice, and coefficient, each clipped to [0, 1]; counts (..., n) → (..., k).

    The coefficients are argmin_a Σᵢ cᵢ(‖vᵢ − Σ_k a_k·u_kᵢ‖² + λ·Σ_k a_k²·‖u_kᵢ‖²). The ridge is in units of each source's own
    effect, so that a weak source reaches 1 beside a strong one; two sources with one and the same effect share it. A source
    without effect stays at 0; NaN where no prompt counts.
    """
    counts = counts.double()
    total = counts.sum(dim=-1, keepdim=True)
    gram = torch.einsum("...n,nkl->...kl", counts, reduced.gram)
    pull = torch.einsum("...n,nk->...k", counts, reduced.pull)
    power = gram.diagonal(dim1=-2, dim2=-1)
    seen = power > _FLOOR * total
    projected = (pull * seen / torch.where(seen, power, 1)).clamp(0, 1)
    gram = gram * (seen.unsqueeze(-1) & seen.unsqueeze(-2)) + torch.diag_embed(torch.where(seen, _RIDGE * power, 1))
    solved = torch.linalg.solve(gram, (pull * seen).unsqueeze(-1)).squeeze(-1).clamp(0, 1)
    return torch.where(total > 0, (projected**2 * solved) ** (1 / 3), torch.nan)


def _leakage(merged: Tensor, effects: Effects, source: int) -> float:
    """Mean movement along the source's mean own effect on prompts that ask for another one, beyond what that one alone shows, in
    units of the own effect; at least 0, and 0 for a source without own effect."""
    others = (effects.asked != source) & (effects.asked != JOINT)
    own = effects.asked == source
    if not bool(others.any()) or not bool(own.any()):
        return float("nan")
    axis = (effects.alone[source, own] - effects.base[own]).mean(dim=0)
    if float(axis.square().sum()) < _FLOOR:
        return 0.0
    expected = effects.alone[effects.asked[others], others.nonzero()[:, 0]]
    moved = (merged[others] - expected) @ axis / axis.square().sum()
    return float(moved.mean().clamp(min=0))
