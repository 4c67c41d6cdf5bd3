"""TIES: trim, elect signs, and average only those who agree."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.merging.deltas import Deltas, Values
from optimizer.merging.methods.magnitude import trimmed
from optimizer.merging.methods.method import Settings


def ties(deltas: Deltas, settings: Settings, /) -> Tensor:
    """TIES-Merging (arXiv 2306.01708, algorithm 1) of ΔW.

    Reads ``density`` (share of entries kept of each source), ``elect_on``, ``majority``, ``normalise`` and ``scale`` (the paper's λ).
    """
    return agreed(trimmed(deltas.dense, settings.density), deltas.columns, settings)


def agreed(values: Values, columns: Tensor, settings: Settings) -> Tensor:
    """Elect a sign for every entry and merge the sources that have it (algorithm 1, steps 2 and 3).

    The elected sign is that of a sum over sources, + where the sum is 0. ``elect_on`` says what is summed: the entries as they are
    (``raw``, as in PEFT) or times their weights (``weighted``, as in mergekit); ``majority`` whether their values count (``total``,
    the paper) or only their signs, one vote a source (``frequency``; mergekit's ``count``). The weighted entries that carry the
    elected sign are added and divided by their number (``normalise`` = ``count``, PEFT and the paper), by the sum of their weights'
    magnitudes (``weight``, mergekit), or by nothing (``none``).

    Args:
        values: n sources' values, 0 for what was dropped.
        columns: (n, b, 1, 1), the weights, signed, not 0.
        settings: the recipe.

    Returns:
        (b, rows, columns), times ``scale``.
    """
    positive = _elected(values, columns, settings)
    merged = torch.zeros(positive.shape, device=positive.device)
    divisor = torch.zeros_like(merged) if settings.normalise != "none" else None
    for value, weight in zip(values(), columns, strict=True):
        turned = weight < 0 if settings.elect_on == "weighted" else torch.zeros_like(weight, dtype=torch.bool)
        chosen = torch.where(positive ^ turned, value > 0, value < 0)
        if divisor is not None:
            divisor += chosen if settings.normalise == "count" else chosen * weight.abs()
        merged += value.mul_(chosen).mul_(weight)
    if divisor is not None:
        merged /= divisor.masked_fill_(divisor == 0, 1)
    return merged.mul_(settings.scale)


def _elected(values: Values, columns: Tensor, settings: Settings) -> Tensor:
    """Where the elected sign is +, (b, rows, columns), bool."""
    total: Tensor | None = None
    for value, weight in zip(values(), columns, strict=True):
        vote = value.mul_(weight) if settings.elect_on == "weighted" else value
        if settings.majority == "frequency":
            vote.sign_()
        total = vote if total is None else total.add_(vote)
    assert total is not None
    return total >= 0
