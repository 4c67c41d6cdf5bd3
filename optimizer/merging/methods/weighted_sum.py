"""The weighted sum, the merge that equals stacking the sources."""

from __future__ import annotations

from optimizer.adapters.factors import Factors
from optimizer.merging.deltas import Deltas
from optimizer.merging.lowrank import concatenated
from optimizer.merging.methods.method import Settings


def weighted_sum(deltas: Deltas, settings: Settings, /) -> Factors:
    """Σ wᵢ · ΔWᵢ by concatenation of the factors: task arithmetic (arXiv 2212.04089, section 2) on LoRA deltas."""
    return concatenated(deltas.factors, deltas.weights)
