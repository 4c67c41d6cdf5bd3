"""Low-rank algebra on batches of modules: sums, singular value decompositions and inner products, without forming a dense ΔW unless needed.

For ΔW = up · down of shape (out, fan_in) and rank R, QR of both factors leaves an R × R core with ΔW's singular values.
An SVD costs O((out + fan_in) · R²) and is exact, so the error of any truncation is known in advance.
All functions work on ``b`` modules of one shape at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer.adapters.factors import Factors


@dataclass(frozen=True, eq=False)
class LowRank:
    """Low-rank factors of ΔW = up @ down for ``b`` modules of one shape.

    Attributes:
        up: left factors, (b, out, r), fp32.
        down: right factors, (b, r, fan_in), fp32.
    """

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        """Number of columns of ``up``."""
        return int(self.up.shape[-1])

    def dense(self) -> Tensor:
        """Returns ΔW, (b, out, fan_in), fp32."""
        return self.up @ self.down

    def to(self, dtype: torch.dtype) -> LowRank:
        """Returns the factors converted to a dtype."""
        return LowRank(self.up.to(dtype), self.down.to(dtype))


Change = LowRank | Tensor
"""ΔW of ``b`` merged modules: factors if it is known to have low rank, else dense, (b, out, fan_in), fp32."""


@dataclass(frozen=True, eq=False)
class Svd:
    """Singular value decomposition ΔW = u · diag(sigma) · vh of ``b`` modules, with p = min(out, fan_in, r) components.

    Attributes:
        u: left singular vectors, (b, out, p), orthonormal columns.
        sigma: singular values, (b, p), descending, ≥ 0.
        vh: right singular vectors, (b, p, fan_in), orthonormal rows.
    """

    u: Tensor
    sigma: Tensor
    vh: Tensor

    def balanced(self, rank: int | None = None) -> LowRank:
        """Returns the first ``rank`` components (all for None) as factors, with √σ on both."""
        root = self.sigma[:, :rank].sqrt()
        return LowRank(self.u[..., :rank] * root[:, None, :], root[:, :, None] * self.vh[:, :rank])

    def seen(self) -> Tensor:
        """Returns a mask of the components above rounding error, (b, p), bool."""
        return self.sigma > 1e-6 * self.sigma.amax(dim=1, keepdim=True)


def unstacked(change: LowRank, shape: tuple[int, ...]) -> list[Factors]:
    """Returns the factors of each module, with alpha = rank (scale 1)."""
    alpha = float(change.rank)
    modules = zip(change.up.unbind(), change.down.unbind(), strict=True)
    return [Factors(up.contiguous(), down.contiguous(), alpha, shape) for up, down in modules]


def concatenated(terms: Sequence[LowRank], weights: Tensor) -> LowRank:
    """Returns Σ wᵢ · ΔWᵢ, exactly, at rank Σ rᵢ: up = [upᵢ], down = [wᵢ · downᵢ].

    Adding the ups and the downs separately would add the cross terms upᵢ @ downⱼ instead.

    Args:
        terms: factors of one or more ΔWᵢ of the same modules.
        weights: signed weights, (n, b).
    """
    up = torch.cat([term.up for term in terms], dim=-1)
    columns = weights[..., None, None].unbind()
    return LowRank(up, torch.cat([w * term.down for term, w in zip(terms, columns, strict=True)], dim=-2))


def svd(change: LowRank) -> Svd:
    """Returns the singular value decomposition, from QR of both factors and the SVD of an R × R core."""
    q_up, r_up = torch.linalg.qr(change.up)
    q_down, r_down = torch.linalg.qr(change.down.mT)
    u, sigma, vh = torch.linalg.svd(r_up @ r_down.mT, full_matrices=False)
    return Svd(q_up @ u, sigma, vh @ q_down.mT)


def inner(a: Change, b: Change) -> Tensor:
    """Returns the Frobenius inner product ⟨ΔWₐ, ΔW_b⟩ of each module, (b,), fp64.

    For two sets of factors it is Σ (upₐᵀ up_b) ⊙ (downₐ down_bᵀ), which needs only matrices of the size of the ranks.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.stack([_dot(x, y) for x, y in zip(a, b, strict=True)])
    if isinstance(a, Tensor):
        return inner(b, a)
    if isinstance(b, Tensor):
        return ((a.up.mT @ b).double() * a.down.double()).sum(dim=(1, 2))
    return ((a.up.double().mT @ b.up.double()) * (a.down.double() @ b.down.double().mT)).sum(dim=(1, 2))


def distance(a: Change, b: Change) -> Tensor:
    """Returns ‖ΔWₐ − ΔW_b‖² of each module, (b,), fp64; for dense matrices from their difference, which avoids cancellation."""
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        return (inner(a, a) - 2 * inner(a, b) + inner(b, b)).clamp(min=0)
    difference = (a.dense() if isinstance(a, LowRank) else a) - (b.dense() if isinstance(b, LowRank) else b)
    return inner(difference, difference)


def gram(terms: Sequence[LowRank]) -> Tensor:
    """Returns the Gram matrix ⟨ΔWᵢ, ΔWⱼ⟩ of each module, (b, n, n), fp64."""
    rows = [torch.stack([inner(a, b) for b in terms], dim=-1) for a in terms]
    return torch.stack(rows, dim=-2)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Returns the inner product of two matrices, row by row, so that no full double-precision copy is made."""
    return torch.stack([torch.dot(x.double(), y.double()) for x, y in zip(a, b, strict=True)]).sum()
