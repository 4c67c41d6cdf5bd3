"""TIES: trim, elect signs, and average only those who agree."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.merging.deltas import Deltas
from optimizer.merging.methods.magnitude import trimmed
from optimizer.merging.methods.method import Settings


def ties(deltas: Deltas, settings: Settings, /) -> Tensor:
    """TIES-Merging (arXiv 2306.01708, algorithm 1) of ΔW.

    Reads ``density`` (share of entries kept of each source), ``elect_on``, ``normalise`` and ``scale`` (the paper's λ).
    """
    return agreed(trimmed(deltas.dense(), settings.density), deltas.column(), settings)


def agreed(values: Tensor, weights: Tensor, settings: Settings) -> Tensor:
    """Elect a sign for every entry and merge the sources that have it (algorithm 1, steps 2 and 3).

    The elected sign is that of the sum over sources, + where the sum is 0. ``elect_on`` says which sum: of the entries as they are
    (``raw``, as in PEFT) or times their weights (``weighted``, as in mergekit). The weighted entries that carry the elected sign are
    added and divided by their number (``normalise`` = ``count``, PEFT and the paper), by the sum of their weights' magnitudes
    (``weight``, mergekit), or by nothing (``none``).

    Args:
        values: (n, out, fan_in), with 0 for what was dropped.
        weights: (n, 1, 1), signed, not 0.
        settings: the recipe.

    Returns:
        (out, fan_in), times ``scale``.
    """
    weighted = weights * values
    voters = values if settings.elect_on == "raw" else weighted
    elected = torch.where(voters.sum(dim=0) >= 0, 1.0, -1.0)
    agree = voters.sign() == elected
    merged = (weighted * agree).sum(dim=0)
    if settings.normalise == "count":
        merged = merged / agree.sum(dim=0).clamp(min=1)
    elif settings.normalise == "weight":
        total = (weights.abs() * agree).sum(dim=0)
        merged = torch.where(total > 0, merged / total, merged)
    return settings.scale * merged
