"""Orthogonalisation: keep each source out of the directions of those before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank, concatenated, svd
from optimizer.merging.methods.method import Settings

_ROUNDING = 1e-5


def orthogonalize(deltas: Deltas, settings: Settings, /) -> LowRank:
    """w₁ΔW₁ + Σ wᵢ · ΔWᵢ(I − s·QQᵀ), where Q spans what the sources before the i-th read: NP-LoRA (arXiv 2511.11051).

    The first source stays whole (the paper has the style there; where its weight is 0, the next one counts as the first), and each of
    more than two keeps out of all before it. ``side`` says which directions: ``input`` (the rows of ΔW, the paper's) or
    ``output`` (its columns). ``strength`` s is 1 for the paper's hard projection and less for a soft one. Reads ``side`` and ``strength``.
    """
    terms = [deltas.terms[0]]
    for index, term in enumerate(deltas.terms[1:], start=1):
        terms.append(_outside(term, deltas.terms[:index], settings))
    return concatenated(terms, deltas.weights)


def _outside(term: LowRank, before: Sequence[LowRank], settings: Settings) -> LowRank:
    """The term with ``strength`` of its part in the span taken away."""
    canonical = [svd(other).balanced() for other in before]
    if settings.side == "input":
        basis = orthonormal_rows(torch.cat([other.down for other in canonical], dim=-2))
        return LowRank(term.up, term.down - settings.strength * (term.down @ basis.mT) @ basis)
    basis = orthonormal_rows(torch.cat([other.up for other in canonical], dim=-1).mT)
    return LowRank(term.up - settings.strength * basis.mT @ (basis @ term.up), term.down)


def orthonormal_rows(matrix: Tensor) -> Tensor:
    """An orthonormal basis of the rows of (b, k, n) matrices, (b, min(k, n), n); rows of 0 where they span less."""
    _, sigma, rows = torch.linalg.svd(matrix, full_matrices=False)
    seen = sigma > _ROUNDING * sigma.amax(dim=1, keepdim=True)
    basis: Tensor = rows * seen[..., None]
    return basis
