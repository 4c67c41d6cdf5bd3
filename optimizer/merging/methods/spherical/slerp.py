"""Spherical linear interpolation of two sources."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank, concatenated, gram
from optimizer.merging.methods.method import Method

_COLLINEAR = 1e-6


def slerp(deltas: Deltas, settings: object, /) -> LowRank:
    """Returns the spherical linear interpolation (Shoemake 1985) of two ΔW, each as one vector, times |w₁| + |w₂|.

    With t = |w₂| / (|w₁| + |w₂|) and the angle θ between sgn(w₁)ΔW₁ and sgn(w₂)ΔW₂ it is their sum with the coefficients
    sin((1 − t)θ) / sin θ and sin(tθ) / sin θ, or those of linear interpolation if θ is 0 or π. Parallel sources give the weighted sum;
    at weights 1 − t and t, both positive, it equals mergekit's ``nuslerp`` of the task vectors.
    """
    if len(deltas.terms) == 1:
        return concatenated(deltas.terms, deltas.weights)
    products = gram(deltas.terms)
    return concatenated(deltas.terms, spherical(deltas.weights.double(), products[:, 0, 0], products[:, 1, 1], products[:, 0, 1]).float())


def nuslerp(deltas: Deltas, settings: object, /) -> LowRank:
    """Returns ``slerp`` of each row of ΔW separately, that is, per output: mergekit's ``nuslerp`` with ``nuslerp_flatten: false``."""
    if len(deltas.terms) == 1:
        return concatenated(deltas.terms, deltas.weights)
    a, b = deltas.terms
    weights = deltas.weights.double()[..., None]
    coefficients = spherical(weights, _rowwise(a, a), _rowwise(b, b), _rowwise(a, b)).float()
    ups = [term.up * c[..., None] for term, c in zip(deltas.terms, coefficients, strict=True)]
    return LowRank(torch.cat(ups, dim=-1), torch.cat([a.down, b.down], dim=-2))


def spherical(weights: Tensor, aa: Tensor, bb: Tensor, ab: Tensor) -> Tensor:
    """Returns the coefficients of two vectors in their spherical interpolation, times the sum of their weights' magnitudes.

    Args:
        weights: signed weights, not both 0, (2, …), fp64.
        aa, bb, ab: inner products of the two vectors, (…), fp64.

    Returns:
        The coefficients, (2, …), fp64.
    """
    total = weights.abs().sum(dim=0)
    t, sign = weights[1].abs() / total, weights.sign()
    norm = (aa * bb).sqrt()
    theta = torch.where(norm > 0, sign[0] * sign[1] * ab / norm.clamp(min=1e-300), 0.0).clamp(-1, 1).acos()
    sine = theta.sin()
    plain = sine < _COLLINEAR
    divisor = sine.masked_fill(plain, 1)
    first = torch.where(plain, 1 - t, ((1 - t) * theta).sin() / divisor)
    second = torch.where(plain, t, (t * theta).sin() / divisor)
    return torch.stack([total * sign[0] * first, total * sign[1] * second])


def _rowwise(a: LowRank, b: LowRank) -> Tensor:
    """Returns the inner products of the rows of ΔWₐ and ΔW_b, (b, out), fp64."""
    across = a.down.double() @ b.down.double().mT
    return ((a.up.double() @ across) * b.up.double()).sum(dim=-1)


SLERP = Method(
    "slerp",
    slerp,
    "Shoemake 1985, Animating rotation with quaternion curves",
    "(|w₁| + |w₂|) · slerp(ΔW₁, ΔW₂; t = |w₂| / (|w₁| + |w₂|))",
    cost="factors",
    most=2,
    reproduces=("mergekit: nuslerp with a base model, at positive weights that add up to 1",),
)
NUSLERP = Method(
    "nuslerp",
    nuslerp,
    "Shoemake 1985, for every row of ΔW",
    "slerp, row by row",
    cost="factors",
    most=2,
    reproduces=("mergekit: nuslerp with a base model and nuslerp_flatten: false, at positive weights that add up to 1",),
)
