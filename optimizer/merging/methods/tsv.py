"""Task singular vectors: make the sources' leading directions orthogonal to each other before adding them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank, Svd, svd
from optimizer.merging.methods.method import Settings


def tsv(deltas: Deltas, settings: Settings, /) -> LowRank:
    """TSV-Merge (arXiv 2412.00081): Û diag(wᵢΣᵢ) V̂ᵀ, with the singular vectors of all sources whitened.

    Of each source the leading components are kept, and the matrices [U₁ | … | U_N] and [V₁ | … | V_N] replaced by the nearest ones with
    orthonormal columns. Reads ``density``, the share of each source's rank kept (the paper: 1/N), and ``scale``.
    """
    parts = [_leading(svd(term), settings.density) for term in deltas.terms]
    sigma = torch.cat([w[:, None] * part.sigma for w, part in zip(deltas.weights, parts, strict=True)], dim=-1) * settings.scale
    left = nearest_orthonormal(torch.cat([part.u for part in parts], dim=-1))
    right = nearest_orthonormal(torch.cat([part.vh.mT for part in parts], dim=-1))
    return LowRank(left, sigma[..., None] * right.mT)


def _leading(whole: Svd, density: float) -> Svd:
    """The leading components; those that are rounding alone count as 0 on both sides, since their directions mean nothing."""
    kept = max(1, math.ceil(round(density * whole.sigma.shape[1], 9)))  # 0.28 · 25 is 7, and a little more in floating point
    seen = whole.seen()[:, :kept]
    return Svd(whole.u[..., :kept] * seen[:, None, :], whole.sigma[:, :kept] * seen, whole.vh[:, :kept] * seen[:, :, None])


def nearest_orthonormal(matrix: Tensor) -> Tensor:
    """M (MᵀM)^(−½), (b, n, k), the solution of the orthogonal Procrustes problem; columns that depend on others share a direction."""
    exact = matrix.double()
    values, vectors = torch.linalg.eigh(exact.mT @ exact)
    root = torch.where(values > 1e-10 * values.amax(dim=-1, keepdim=True), values, torch.inf).rsqrt()
    found: Tensor = exact @ (vectors * root[:, None, :]) @ vectors.mT
    return found.float()
