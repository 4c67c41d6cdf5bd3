"""Compression: the best approximation of a change at a rank, exactly for factors, by checked Krylov iteration for dense matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.merging.algebra.krylov import WIDTH, leading
from optimizer.merging.algebra.lowrank import Change, LowRank, svd

_COLUMNS = 1024


def compressed(change: Change, rank: int | None, *, ordered: bool = False) -> LowRank:
    """The best approximation of a change with at most ``rank`` components; with None the change itself, exactly.

    Args:
        change: factors, or dense matrices (b, out, fan_in).
        rank: upper limit; never more components than the change can have are kept.
        ordered: give the components in the order of their singular values, √σ on both factors, even where nothing is cut.
    """
    if isinstance(change, LowRank):
        cut = rank is not None and rank < change.rank
        return svd(change).balanced(rank) if cut or ordered else change
    most = min(change.shape[-2:])
    if rank is not None and rank < most:
        return _truncated(change, rank)
    return _truncated(change, most) if ordered else _whole(change)


def _whole(matrix: Tensor) -> LowRank:
    """The matrices themselves as factors of full rank, exact to the bit: identity times matrix, or matrix times identity."""
    count, rows, columns = matrix.shape
    eye = torch.eye(min(rows, columns), device=matrix.device).repeat(count, 1, 1)  # modules that share memory cannot be written
    return LowRank(eye, matrix) if rows <= columns else LowRank(matrix, eye)


def _truncated(matrix: Tensor, rank: int) -> LowRank:
    wide = matrix.shape[-2] <= matrix.shape[-1]
    short = matrix if wide else matrix.mT
    basis = _found(short, rank) if 8 * max(rank, WIDTH) <= short.shape[-2] else _exact(short, rank)
    rest = basis.mT @ short
    sigma = torch.linalg.vector_norm(rest, dim=-1)
    seen = sigma > torch.finfo(sigma.dtype).eps * sigma.amax(dim=1, keepdim=True)  # less is rounding, and its norm may even underflow
    root = torch.where(seen, sigma, 1).sqrt()
    left, right = basis * (root * seen)[:, None, :], rest * (seen / root)[:, :, None]
    return LowRank(left, right) if wide else LowRank(right.mT.contiguous(), left.mT.contiguous())


def _found(short: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors of large matrices, (b, rows, rank): by iteration, and exactly where that does not converge."""
    basis, converged = leading(short, rank)
    for index in (~converged).nonzero().flatten().tolist():
        basis[index] = _exact(short[index : index + 1], rank)[0]
    return basis


def _exact(short: Tensor, rank: int) -> Tensor:
    """The same from eigenvectors of the Gram matrices.

    In double precision: a Gram matrix squares the singular values. Several times faster than an SVD of the matrix.
    """
    gram = torch.zeros(*short.shape[:-1], short.shape[-2], dtype=torch.float64, device=short.device)
    for part in torch.split(short, _COLUMNS, dim=-1):  # a copy of the whole in double precision would be the greatest of a merge
        exact = part.double()
        gram.baddbmm_(exact, exact.mT)
    vectors: Tensor = torch.linalg.eigh(gram).eigenvectors
    return vectors[..., -rank:].flip(-1).float()
