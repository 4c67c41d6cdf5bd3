"""Consensus: keep the entries of the sum that several sources want."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.merging.deltas import Deltas
from optimizer.merging.methods.method import Settings
from optimizer.merging.methods.weighted_sum import summed


def consensus(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Consensus merging with TALL masks (arXiv 2405.07813) of the weighted ΔW.

    A source wants an entry where |wᵢΔWᵢ| ≥ λ · |Σ wⱼΔWⱼ − wᵢΔWᵢ|; entries of the sum that fewer than ``quorum`` sources want are
    dropped. A quorum of 1 drops what no source wants, 2 also what a single one does ("selfish weights"); of fewer sources, all.

    Reads ``mask_scale`` (the paper's λ), ``quorum`` and ``scale``.
    """
    whole = summed(deltas.dense, deltas.columns)
    wanted = torch.zeros(whole.shape, dtype=torch.uint8, device=whole.device)
    for value, weight in zip(deltas.dense(), deltas.columns, strict=True):
        own = value.mul_(weight)
        wanted += own.abs() >= (whole - own).abs_().mul_(settings.mask_scale)
    return whole.mul_(wanted >= min(settings.quorum, len(deltas.terms))).mul_(settings.scale)
