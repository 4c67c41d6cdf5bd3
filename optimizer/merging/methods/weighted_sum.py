"""The weighted sum, the merge that equals stacking the sources, and the weighted mean."""

from __future__ import annotations

from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank, concatenated
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.method import Settings


def weighted_sum(deltas: Deltas, settings: Settings, /) -> LowRank:
    """Σ wᵢ · ΔWᵢ by concatenation of the factors: task arithmetic (arXiv 2212.04089, section 2) on LoRA deltas."""
    return concatenated(deltas.terms, deltas.weights)


def model_soup(deltas: Deltas, settings: Settings, /) -> LowRank:
    """Σ wᵢ · ΔWᵢ / Σ |wᵢ|: the uniform soup of Model Soups (arXiv 2203.05482) at equal weights.

    A source without the module counts as one that changes nothing there, so the mean is one of files.
    """
    return concatenated(deltas.terms, deltas.weights / deltas.total)


def summed(values: Slabs, columns: Tensor) -> Tensor:
    """Σ wᵢ · xᵢ of dense values, (b, rows, columns).

    Args:
        values: n sources' values.
        columns: (n, b, 1, 1), their weights.
    """
    return values.merged(lambda parts: total(parts, columns))


def total(parts: list[Tensor], columns: Tensor) -> Tensor:
    """The same of one slab, in the first source's place."""
    whole = parts[0].mul_(columns[0])
    for part, weight in zip(parts[1:], columns[1:], strict=True):
        whole.addcmul_(part, weight)
    return whole
