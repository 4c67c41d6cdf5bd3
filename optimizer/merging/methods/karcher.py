"""The Karcher mean of any number of sources: the point of the sphere that is nearest to all of their directions."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank, concatenated, gram
from optimizer.merging.methods.method import Settings

_STEPS = 100
_TOLERANCE = 1e-10
_OPPOSITE = -1 + 1e-9  # a cosine below which the way to a vector is not known
_EMPTY = 0.5  # steps keep the length of 1, so a shorter mean is that of sources that change nothing


def karcher(deltas: Deltas, settings: Settings, /) -> LowRank:
    """The Riemannian centre of mass (Karcher 1977) of the directions sgn(wᵢ)ΔWᵢ/‖ΔWᵢ‖ with the weights |wᵢ|, at the length Σ |wᵢ|·‖ΔWᵢ‖.

    For two sources of equal norm it is ``slerp``; at weights 1/N it is what mergekit's ``karcher``, which works on whole weights, gives
    for ΔW. The mean lies in the sources' span, so all steps are made on its coefficients there.
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
    """Coefficients of the Karcher mean in unit vectors, (b, n), fp64, by gradient descent with steps of 1.

    Where the vectors cancel each other there is no unique mean; the first one's direction is taken as the start. A vector opposite to
    the mean pulls it in no direction rather than in any.

    Args:
        cosines: the vectors' inner products, (b, n, n), fp64.
        shares: their weights, (b, n), which add up to 1.
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
    """(b, 1)."""
    return torch.einsum("bi,bij,bj->b", vector, cosines, vector).clamp(min=0).sqrt()[:, None]
