"""The weighted sum, the merge that equals stacking the sources, and the weighted mean."""

from __future__ import annotations

from torch import Tensor

from optimizer.merging.deltas import Deltas, Values
from optimizer.merging.lowrank import LowRank, concatenated
from optimizer.merging.methods.method import Settings


def weighted_sum(deltas: Deltas, settings: Settings, /) -> LowRank:
    """Σ wᵢ · ΔWᵢ by concatenation of the factors: task arithmetic (arXiv 2212.04089, section 2) on LoRA deltas."""
    return concatenated(deltas.terms, deltas.weights)


def model_soup(deltas: Deltas, settings: Settings, /) -> LowRank:
    """Σ wᵢ · ΔWᵢ / Σ |wᵢ|: the uniform soup of Model Soups (arXiv 2203.05482) at equal weights.

    A source without the module counts as one that changes nothing there, so the mean is one of files.
    """
    return concatenated(deltas.terms, deltas.weights / deltas.total)


def summed(values: Values, columns: Tensor) -> Tensor:
    """Σ wᵢ · xᵢ of dense values, (b, rows, columns).

    Args:
        values: n sources' values.
        columns: (n, b, 1, 1), their weights.
    """
    terms = zip(values(), columns, strict=True)
    first, weight = next(terms)
    merged = first.mul_(weight)
    for value, weight in terms:
        merged += value.mul_(weight)
    return merged
