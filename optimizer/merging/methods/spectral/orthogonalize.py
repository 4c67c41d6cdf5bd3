"""Orthogonalisation: projects each source onto the complement of the directions of the sources before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank, concatenated, svd
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.parameter import Parameter

_ROUNDING = 1e-5


Side = Literal["input", "output"]

SIDE = Parameter(
    name="side",
    description="Which directions orthogonalize keeps apart: those that the sources read (input), or those that they write (output).",
    default="input",
    start="input",
    choices=get_args(Side),
)
STRENGTH = Parameter(
    name="strength",
    description="How much orthogonalize removes of the directions that a source shares with earlier ones: 0 is nothing, 1 is all.",
    default=1.0,
    start=1.0,
    ge=0,
    le=1,
    low=0.0,
    high=1.0,
)


class OrthogonalizeSettings(Protocol):
    """Settings of orthogonalisation."""

    @property
    def side(self) -> Side: ...
    @property
    def strength(self) -> float: ...


def orthogonalize(deltas: Deltas, settings: OrthogonalizeSettings, /) -> LowRank:
    """Returns w₁ΔW₁ + Σ wᵢ · ΔWᵢ(I − s·QQᵀ), where Q spans the row spaces of the sources before the i-th: NP-LoRA (arXiv 2511.11051).

    The first source is unchanged (in the paper it is the style; if its weight is 0, the next source counts as the first). With more than
    two sources, each is projected against all before it. ``side`` selects the directions: ``input`` (rows of ΔW, as in the paper) or
    ``output`` (columns). ``strength`` s is 1 for the paper's hard projection and less for a soft one. Reads ``side`` and ``strength``.
    """
    terms = [deltas.terms[0]]
    for index, term in enumerate(deltas.terms[1:], start=1):
        terms.append(_outside(term, deltas.terms[:index], settings))
    return concatenated(terms, deltas.weights)


def _outside(term: LowRank, before: Sequence[LowRank], settings: OrthogonalizeSettings) -> LowRank:
    """Returns the term minus ``strength`` times its projection onto the span of the terms before it."""
    canonical = [svd(other).balanced() for other in before]
    if settings.side == "input":
        basis = orthonormal_rows(torch.cat([other.down for other in canonical], dim=-2))
        return LowRank(term.up, term.down - settings.strength * (term.down @ basis.mT) @ basis)
    basis = orthonormal_rows(torch.cat([other.up for other in canonical], dim=-1).mT)
    return LowRank(term.up - settings.strength * basis.mT @ (basis @ term.up), term.down)


def orthonormal_rows(matrix: Tensor) -> Tensor:
    """Returns an orthonormal basis of the row spaces of (b, k, n) matrices, (b, min(k, n), n), zero-padded if the rank is lower."""
    _, sigma, rows = torch.linalg.svd(matrix, full_matrices=False)
    seen = sigma > _ROUNDING * sigma.amax(dim=1, keepdim=True)
    basis: Tensor = rows * seen[..., None]
    return basis


ORTHOGONALIZE = Method(
    "orthogonalize",
    orthogonalize,
    "NP-LoRA, arXiv 2511.11051",
    "w₁ΔW₁ + Σ wᵢΔWᵢ(I − s·QQᵀ), Q from the sources before",
    (SIDE, STRENGTH),
    cost="core",
    commutes=False,
)
