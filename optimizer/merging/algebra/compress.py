"""Compression: best low-rank approximation of ΔW, exact for factors, by Krylov iteration with a convergence check for dense matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.merging.algebra.krylov import WIDTH, leading
from optimizer.merging.algebra.lowrank import Change, LowRank, svd

_COLUMNS = 1024


def compressed(change: Change, rank: int | None, *, ordered: bool = False) -> LowRank:
    """Returns the best approximation of ΔW with at most ``rank`` components; for None, ΔW itself, exactly.

    Args:
        change: low-rank factors, or dense matrices (b, out, fan_in).
        rank: maximum rank; never more components than ΔW can have are kept.
        ordered: whether to order the components by singular value, with √σ on both factors, even if nothing is truncated.
    """
    if isinstance(change, LowRank):
        cut = rank is not None and rank < change.rank
        return svd(change).balanced(rank) if cut or ordered else change
    most = min(change.shape[-2:])
    if rank is not None and rank < most:
        return _truncated(change, rank)
    return _truncated(change, most) if ordered else _whole(change)


def _whole(matrix: Tensor) -> LowRank:
    """Returns the matrices as full-rank factors, exact to the bit: identity times matrix, or matrix times identity."""
    count, rows, columns = matrix.shape
    eye = torch.eye(min(rows, columns), device=matrix.device).repeat(count, 1, 1)  # copies: files cannot hold shared tensors
    return LowRank(eye, matrix) if rows <= columns else LowRank(matrix, eye)


def _truncated(matrix: Tensor, rank: int) -> LowRank:
    wide = matrix.shape[-2] <= matrix.shape[-1]
    short = matrix if wide else matrix.mT
    basis = _found(short, rank) if 8 * max(rank, WIDTH) <= short.shape[-2] else _exact(short, rank)
    rest = basis.mT @ short
    sigma = torch.linalg.vector_norm(rest, dim=-1)
    seen = sigma > torch.finfo(sigma.dtype).eps * sigma.amax(dim=1, keepdim=True)  # rounding errors, whose norm may underflow
    root = torch.where(seen, sigma, 1).sqrt()
    left, right = basis * (root * seen)[:, None, :], rest * (seen / root)[:, :, None]
    return LowRank(left, right) if wide else LowRank(right.mT.contiguous(), left.mT.contiguous())


def _found(short: Tensor, rank: int) -> Tensor:
    """Returns the leading left singular vectors of large matrices, (b, rows, rank): by iteration, or exactly if it does not converge."""
    basis, converged = leading(short, rank)
    for index in (~converged).nonzero().flatten().tolist():
        basis[index] = _exact(short[index : index + 1], rank)[0]
    return basis


def _exact(short: Tensor, rank: int) -> Tensor:
    """Returns the leading left singular vectors, (b, rows, rank), from the eigenvectors of the Gram matrices.

    Computed in double precision, because a Gram matrix squares the singular values. Several times faster than an SVD of the matrix.
    """
    gram = torch.zeros(*short.shape[:-1], short.shape[-2], dtype=torch.float64, device=short.device)
    for part in torch.split(short, _COLUMNS, dim=-1):  # in parts, to avoid a double-precision copy of the whole
        exact = part.double()
        gram.baddbmm_(exact, exact.mT)
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors[..., -rank:].flip(-1).float()
