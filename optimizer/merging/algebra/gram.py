"""Gram matrices: spectrum and column spaces of ΔW from upᵀup and down·downᵀ (r × r), without forming ΔW.

All computations are in double precision, since a Gram matrix squares the singular values. They cost O((out + fan_in) · r²) per module,
a few times less than the QR decompositions of ``lowrank``, which keep the small singular values to full accuracy.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optimizer.adapters.factors import Factors

# Threshold of linear dependence, relative to the largest eigenvalue; its root, 1e-6 of the largest singular value, is fp32 rounding.
_DEPENDENT = 1e-12


def energies(factors: Factors) -> Tensor:
    """Returns the squared singular values σ² of ΔW, descending, (min(r, out, fan_in),), fp64.

    With upᵀup = VΛVᵀ they are the eigenvalues of Λ^½Vᵀ (down·downᵀ) VΛ^½. If the rank is not smaller than min(out, fan_in), they are the
    eigenvalues of ΔW·ΔWᵀ or ΔWᵀ·ΔW, whichever is smaller. Rounding adds about 1e-16 of the largest value.
    """
    up, down = factors.up.double(), factors.down.double()
    rows, columns = up.shape[0], down.shape[1]
    if factors.rank < min(rows, columns):
        values, vectors = torch.linalg.eigh(up.T @ up)
        root = vectors * values.clamp(min=0).sqrt()
        square = root.T @ (down @ down.T) @ root
    elif rows <= columns:
        square = up @ (down @ down.T) @ up.T
    else:
        square = down.T @ (up.T @ up) @ down
    found: Tensor = torch.linalg.eigvalsh(square).clamp(min=0).flip(0)
    return factors.scale**2 * found


def rank_for(energy: Tensor, share: float) -> int:
    """Returns the smallest rank that keeps a share of Σσ²; 0 if all energies are 0.

    Args:
        energy: σ², descending.
        share: share of the energy to keep, in (0, 1].
    """
    kept = energy.double().cumsum(0)
    total = float(kept[-1]) if len(kept) else 0.0
    # The tolerance prevents one extra direction, due to rounding, when the share is met exactly.
    return int((kept < share * (1 - 1e-12) * total).sum()) + 1 if total > 0 else 0


def effective_rank(energy: Tensor) -> float:
    """Returns the effective rank of ΔW, in [1, rank]: exp(−Σ pᵢ ln pᵢ) with pᵢ = σᵢ² / Σσ²; 0 for ΔW = 0.

    Follows Roy & Vetterli, The effective rank (EUSIPCO 2007), definition 1, with the energies σ² in place of their singular values σ, so
    that the shares are those that a truncation loses. n equal energies give n.
    """
    total = float(energy.sum())
    if total <= 0:
        return 0.0
    shares = (energy / total)[energy > 0]
    return math.exp(-float((shares * shares.log()).sum()))


def spans(up: Tensor, down: Tensor, up_gram: Tensor, down_gram: Tensor) -> tuple[Tensor, Tensor]:
    """Returns T_up and T_down, (r, p): up @ T_up is an orthonormal basis of ΔW's column space and downᵀ @ T_down one of its row space.

    The column space of ΔW is that of ``up``, unless the rows of ``down`` are linearly dependent, for instance if r > fan_in. In that case
    only the combinations of columns that ``down`` produces count. The row space is treated in the same way.

    Args:
        up: factor ``up``, (out, r), fp64.
        down: transposed factor downᵀ, (fan_in, r), fp64.
        up_gram, down_gram: Gram matrices of ``up`` and ``down``, (r, r).
    """
    rank, left, right = up.shape[1], _span(up, up_gram), _span(down, down_gram)
    return (
        left if right.shape[1] == rank else _span_within(up, up_gram, right),
        right if left.shape[1] == rank else _span_within(down, down_gram, left),
    )


def _span_within(matrix: Tensor, gram: Tensor, combinations: Tensor) -> Tensor:
    """Returns T as ``_span`` does, for orthogonal combinations of the columns only, (r, q)."""
    unit = combinations / torch.linalg.vector_norm(combinations, dim=0)
    found: Tensor = unit @ _span(matrix @ unit, unit.T @ gram @ unit)
    return found


def _span(matrix: Tensor, gram: Tensor) -> Tensor:
    """Returns T, (r, p), such that matrix @ T is an orthonormal basis, (n, p), of the column space of an (n, r) matrix."""
    n, r = matrix.shape
    values, vectors = torch.linalg.eigh(gram if r <= n else matrix @ matrix.T)
    kept = values > _DEPENDENT * values.amax() if len(values) else values > 0
    values, vectors = values[kept], vectors[:, kept]
    found: Tensor = vectors / values.sqrt() if r <= n else matrix.T @ vectors / values
    return found
