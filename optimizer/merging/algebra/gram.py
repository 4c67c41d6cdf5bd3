"""Gram matrices: what the products upᵀup and down·downᵀ, of the size of the rank, tell about a ΔW that is never formed.

Everything here is in double precision, since a Gram matrix squares the singular values; it takes O((out + fan_in) · r²) per module,
a few times less than the QR decompositions of ``lowrank``, which keep the small singular values to full accuracy.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optimizer.adapters.factors import Factors

# Relative to the greatest eigenvalue; its root, 1e-6 of the greatest singular value, is the rounding of factors in fp32.
_DEPENDENT = 1e-12


def energies(factors: Factors) -> Tensor:
    """Squared singular values σ² of ΔW, descending, (min(r, out, fan_in),), fp64.

    With upᵀup = VΛVᵀ they are the eigenvalues of Λ^½Vᵀ (down·downᵀ) VΛ^½; where the rank is no smaller than a side of ΔW, those of
    ΔW·ΔWᵀ or ΔWᵀ·ΔW, whichever is smaller. Rounding adds about 1e-16 of the greatest.
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
    """The least rank that keeps a share of Σσ², 0 where there is nothing to keep.

    Args:
        energy: σ², descending.
        share: in (0, 1].
    """
    kept = energy.double().cumsum(0)
    total = float(kept[-1]) if len(kept) else 0.0
    # The tolerance keeps rounding from asking for one direction more where the share is met exactly.
    return int((kept < share * (1 - 1e-12) * total).sum()) + 1 if total > 0 else 0


def effective_rank(energy: Tensor) -> float:
    """How many directions ΔW uses, in [1, rank]: exp(−Σ pᵢ ln pᵢ) with pᵢ = σᵢ² / Σσ²; 0 for a ΔW of 0.

    Roy & Vetterli, The effective rank (EUSIPCO 2007), definition 1, of the energies σ² where they take the singular values σ: the shares
    are then those that a truncation loses. Equal energies give their number.
    """
    total = float(energy.sum())
    if total <= 0:
        return 0.0
    shares = (energy / total)[energy > 0]
    return math.exp(-float((shares * shares.log()).sum()))


def spans(up: Tensor, down: Tensor, up_gram: Tensor, down_gram: Tensor) -> tuple[Tensor, Tensor]:
    """T_up and T_down, (r, p), such that up @ T_up is an orthonormal basis of ΔW's columns and downᵀ @ T_down one of its rows.

    The columns of ΔW span what those of ``up`` do, unless the rows of ``down`` are dependent, for instance more than they are long: only
    the combinations that ``down`` makes count then. The same holds the other way round.

    Args:
        up: (out, r), fp64.
        down: downᵀ, (fan_in, r), fp64.
        up_gram, down_gram: their Gram matrices, (r, r).
    """
    rank, left, right = up.shape[1], _span(up, up_gram), _span(down, down_gram)
    return (
        left if right.shape[1] == rank else _span_within(up, up_gram, right),
        right if left.shape[1] == rank else _span_within(down, down_gram, left),
    )


def _span_within(matrix: Tensor, gram: Tensor, combinations: Tensor) -> Tensor:
    """As ``_span``, of the columns' combinations alone, (r, q), which are orthogonal."""
    unit = combinations / torch.linalg.vector_norm(combinations, dim=0)
    found: Tensor = unit @ _span(matrix @ unit, unit.T @ gram @ unit)
    return found


def _span(matrix: Tensor, gram: Tensor) -> Tensor:
    """T, (r, p), such that matrix @ T is an orthonormal basis, (n, p), of what the columns of an (n, r) matrix span."""
    n, r = matrix.shape
    values, vectors = torch.linalg.eigh(gram if r <= n else matrix @ matrix.T)
    kept = values > _DEPENDENT * values.amax() if len(values) else values > 0
    values, vectors = values[kept], vectors[:, kept]
    found: Tensor = vectors / values.sqrt() if r <= n else matrix.T @ vectors / values
    return found
