"""Karcher mean: the Riemannian centre of mass, on the unit sphere, of the directions of any number of sources."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank, concatenated, gram
from optimizer.merging.methods.method import Method

_STEPS = 100
_TOLERANCE = 1e-10
_OPPOSITE = -1 + 1e-9  # cosine below which the geodesic to a vector is not unique
_EMPTY = 0.5  # iterates have length 1; a shorter mean comes from sources with ΔW = 0


def karcher(deltas: Deltas, settings: object, /) -> LowRank:
    """Returns the Riemannian centre of mass (Karcher 1977) of the directions sgn(wᵢ)ΔWᵢ/‖ΔWᵢ‖ with weights |wᵢ| and norm Σ |wᵢ|·‖ΔWᵢ‖.

    For two sources of equal norm it equals ``slerp``; at weights 1/N it equals mergekit's ``karcher``, which works on whole weights,
    applied to ΔW. The mean lies in the sources' span, so all steps are computed on its coefficients there.
    """
    products = gram(deltas.terms)
    norms = products.diagonal(dim1=1, dim2=2).sqrt()
    weights = deltas.weights.double().mT
    units = weights.sign() / norms.masked_fill(norms == 0, torch.inf)
    shares = weights.abs() * (norms > 0)
    shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-300)
    mean = sphere_mean(units[:, :, None] * products * units[:, None, :], shares)
    length = (weights.abs() * norms).sum(dim=1, keepdim=True)
    return concatenated(deltas.terms, (length * mean * units).float().mT)


def sphere_mean(cosines: Tensor, shares: Tensor) -> Tensor:
    """Returns the coefficients of the Karcher mean in unit vectors, (b, n), fp64, by gradient descent with step size 1.

    If the vectors cancel each other the mean is not unique; the iteration then starts at the first vector. A vector opposite to the mean
    contributes no gradient, because its direction is undefined.

    Args:
        cosines: inner products of the unit vectors, (b, n, n), fp64.
        shares: weights of the vectors, (b, n), with sum 1.
    """
    mean = _unit(shares, cosines)
    for _ in range(_STEPS):
        along = torch.einsum("bij,bj->bi", cosines, mean).clamp(-1 + 1e-12, 1 - 1e-15)
        theta = along.acos()
        pull = torch.where(along > _OPPOSITE, shares * theta / theta.sin(), 0.0)
        tangent = pull - (pull * along).sum(dim=1, keepdim=True) * mean
        length = _length(tangent, cosines)
        mean = length.cos() * mean + torch.sinc(length / torch.pi) * tangent
        mean = mean / _length(mean, cosines).clamp(min=_EMPTY)
        if bool((length < _TOLERANCE).all()):
            break
    return mean


def _unit(mean: Tensor, cosines: Tensor) -> Tensor:
    length = _length(mean, cosines)
    first = torch.zeros_like(mean)
    first[:, 0] = 1
    return torch.where(length > 1e-6, mean / length.clamp(min=1e-300), first)


def _length(vector: Tensor, cosines: Tensor) -> Tensor:
    """Returns the norm of each vector of coefficients, (b, 1)."""
    return torch.einsum("bi,bij,bj->b", vector, cosines, vector).clamp(min=0).sqrt()[:, None]


KARCHER = Method(
    "karcher",
    karcher,
    "Karcher 1977, Riemannian center of mass and mollifier smoothing",
    "Σ |wᵢ|‖ΔWᵢ‖ · the mean of the directions on the sphere",
    cost="factors",
    reproduces=("mergekit: karcher, did it work on ΔW and not on whole weights, at weights 1/N",),
)
