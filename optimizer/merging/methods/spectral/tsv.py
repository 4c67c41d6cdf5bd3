"""Task singular vectors: orthogonalises the sources' leading singular vectors against each other before summation."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank, Svd, svd
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.shared_parameters import DENSITY, SCALE, DensitySettings, ScaleSettings


class TsvSettings(DensitySettings, ScaleSettings, Protocol):
    """Settings of TSV-Merge."""


def tsv(deltas: Deltas, settings: TsvSettings, /) -> LowRank:
    """Returns TSV-Merge (arXiv 2412.00081): Û diag(wᵢΣᵢ) V̂ᵀ, with the singular vectors of all sources whitened.

    The leading components of each source are kept, and the matrices [U₁ | … | U_N] and [V₁ | … | V_N] are replaced by the nearest
    matrices with orthonormal columns. Reads ``density``, the share of each source's rank kept (the paper: 1/N), and ``scale``.
    """
    parts = [_leading(svd(term), settings.density) for term in deltas.terms]
    sigma = torch.cat([w[:, None] * part.sigma for w, part in zip(deltas.weights, parts, strict=True)], dim=-1) * settings.scale
    left = nearest_orthonormal(torch.cat([part.u for part in parts], dim=-1))
    right = nearest_orthonormal(torch.cat([part.vh.mT for part in parts], dim=-1))
    return LowRank(left, sigma[..., None] * right.mT)


def _leading(whole: Svd, density: float) -> Svd:
    """Returns the leading components; components at rounding level are set to 0 on both sides, because their directions are arbitrary."""
    kept = max(1, math.ceil(round(density * whole.sigma.shape[1], 9)))  # 0.28 · 25 is 7, but slightly more in floating point
    seen = whole.seen()[:, :kept]
    return Svd(whole.u[..., :kept] * seen[:, None, :], whole.sigma[:, :kept] * seen, whole.vh[:, :kept] * seen[:, :, None])


def nearest_orthonormal(matrix: Tensor) -> Tensor:
    """Returns M (MᵀM)^(−½), (b, n, k), the orthogonal Procrustes solution; linearly dependent columns share a direction."""
    exact = matrix.double()
    values, vectors = torch.linalg.eigh(exact.mT @ exact)
    root = torch.where(values > 1e-10 * values.amax(dim=-1, keepdim=True), values, torch.inf).rsqrt()
    found: Tensor = exact @ (vectors * root[:, None, :]) @ vectors.mT
    return found.float()


TSV = Method(
    "tsv",
    tsv,
    "TSV-M, arXiv 2412.00081",
    "λ · Û diag(wᵢΣᵢ) V̂ᵀ, all sources' singular vectors whitened",
    (DENSITY, SCALE),
    cost="core",
)
