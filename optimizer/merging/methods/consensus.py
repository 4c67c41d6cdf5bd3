"""Consensus: keep the entries of the sum that several sources want."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.methods.method import Settings


def consensus(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Consensus merging with TALL masks (arXiv 2405.07813) of the weighted ΔW.

    A source wants an entry where |wᵢΔWᵢ| ≥ λ · |Σ wⱼΔWⱼ − wᵢΔWᵢ|; entries of the sum that fewer than ``quorum`` sources want are
    dropped. A quorum of 1 drops what no source wants, 2 also what a single one does ("selfish weights"); of fewer sources, all.

    Reads ``mask_scale`` (the paper's λ), ``quorum`` and ``scale``.
    """
    return deltas.dense.merged(lambda parts: _wanted(parts, deltas.columns, settings))


def _wanted(parts: list[Tensor], columns: Tensor, settings: Settings) -> Tensor:
    """The same of one slab."""
    owns = [part.mul_(weight) for part, weight in zip(parts, columns, strict=True)]
    whole = torch.stack(owns).sum(dim=0)
    votes = torch.zeros(whole.shape, dtype=torch.uint8, device=whole.device)
    for own in owns:
        votes += own.abs() >= (whole - own).abs_().mul_(settings.mask_scale)
    return whole.mul_(votes >= min(settings.quorum, len(parts))).mul_(settings.scale)
