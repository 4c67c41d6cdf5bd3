"""Magnitude pruning: of every source only the largest entries of ΔW."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.merging.deltas import Deltas
from optimizer.merging.methods.method import Settings


def trimmed(deltas: Tensor, density: float) -> Tensor:
    """Each source's entries of largest magnitude, the rest 0; (n, out, fan_in) → the same.

    ⌊density · out · fan_in⌋ entries of each source survive, at least one; all that equal the smallest survivor survive with it, so
    the result does not depend on how a device breaks ties.
    """
    count = deltas[0].numel()
    kept = max(1, int(density * count))
    if kept == count:
        return deltas
    size = deltas.abs()
    limit = torch.kthvalue(size.flatten(1), count - kept + 1, dim=1).values
    return torch.where(size >= limit[:, None, None], deltas, torch.zeros_like(deltas))


def magnitude_prune(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Σ wᵢ · trim(ΔWᵢ): the trimming step of TIES (arXiv 2306.01708, section 3, step 1) without its election.

    Reads ``density``, the share of entries kept of each source.
    """
    return (deltas.column() * trimmed(deltas.dense(), settings.density)).sum(dim=0)
