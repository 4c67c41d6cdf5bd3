"""Isotropic merging: flattens the spectrum of the weighted sum, so that no source's directions dominate."""

from __future__ import annotations

from typing import Protocol

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank, Svd, concatenated, svd
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.parameter import Parameter
from optimizer.merging.methods.shared_parameters import SCALE, ScaleSettings

ISOTROPY = Parameter(
    name="isotropy",
    description="How evenly iso spreads the change over its directions: 0 leaves it as it is, 1 makes all singular values equal.",
    default=1.0,
    start=1.0,
    ge=0,
    le=1,
    low=0.0,
    high=1.0,
)


class IsoSettings(ScaleSettings, Protocol):
    """Settings of isotropic merging."""

    @property
    def isotropy(self) -> float: ...


def iso(deltas: Deltas, settings: IsoSettings, /) -> LowRank:
    """Returns Iso-C (arXiv 2502.04959): the weighted sum with every singular value replaced by their mean.

    The mean is taken over the nonzero components of the sum, Σ rᵢ at most; all others would be directions that no source has.
    ``isotropy`` β interpolates from the plain sum: σ ← (1 − β)σ + βσ̄; the paper has β = 1. Reads ``isotropy`` and ``scale``.
    """
    whole = svd(concatenated(deltas.terms, deltas.weights))
    seen = whole.seen()
    mean = (whole.sigma * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True).clamp(min=1)
    flat = (1 - settings.isotropy) * whole.sigma + settings.isotropy * mean * seen
    return Svd(whole.u, settings.scale * flat, whole.vh).balanced()


ISO = Method(
    "iso",
    iso,
    "Iso-C, arXiv 2502.04959",
    "λ · U((1 − β)Σ + βσ̄I)Vᵀ of UΣVᵀ = Σ wᵢΔWᵢ",
    (ISOTROPY, SCALE),
    cost="core",
)
