"""Consensus merging: keeps the entries of the weighted sum that several sources select."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.parameter import Parameter
from optimizer.merging.methods.shared_parameters import SCALE, ScaleSettings

MASK_SCALE = Parameter(
    name="mask_scale",
    description="Consensus lets a source select an entry that is at least this many times as large as the other sources' sum. The paper "
    "calls it λ.",
    default=0.4,
    start=0.4,
    ge=0,
    low=0.2,
    high=0.6,
)
QUORUM = Parameter(
    name="quorum",
    description="How many sources must select an entry for consensus to keep it.",
    default=2,
    start=2,
    ge=1,
    choices=(1, 2),
)


class ConsensusSettings(ScaleSettings, Protocol):
    """Settings of consensus merging."""

    @property
    def mask_scale(self) -> float: ...
    @property
    def quorum(self) -> int: ...


def consensus(deltas: Deltas, settings: ConsensusSettings, /) -> Tensor:
    """Returns the consensus merge of the weighted ΔW with TALL masks (arXiv 2405.07813).

    A source selects an entry where |wᵢΔWᵢ| ≥ λ · |Σ wⱼΔWⱼ − wᵢΔWᵢ|; entries of the sum that fewer than ``quorum`` sources select are
    dropped. A quorum of 1 drops entries that no source selects, 2 also those that only one selects ("selfish weights"). If there are
    fewer sources than the quorum, all of them have to select an entry.

    Reads ``mask_scale`` (the paper's λ), ``quorum`` and ``scale``.
    """
    return deltas.dense.merged(lambda parts: _wanted(parts, deltas.columns, settings))


def _wanted(parts: list[Tensor], columns: Tensor, settings: ConsensusSettings) -> Tensor:
    """Returns the consensus merge of one tile of rows."""
    owns = [part.mul_(weight) for part, weight in zip(parts, columns, strict=True)]
    whole = torch.stack(owns).sum(dim=0)
    votes = torch.zeros(whole.shape, dtype=torch.uint8, device=whole.device)
    for own in owns:
        votes += own.abs() >= (whole - own).abs_().mul_(settings.mask_scale)
    return whole.mul_(votes >= min(settings.quorum, len(parts))).mul_(settings.scale)


CONSENSUS = Method(
    "consensus",
    consensus,
    "Consensus merging with TALL masks, arXiv 2405.07813",
    "entries of Σ wᵢΔWᵢ that enough sources want",
    (MASK_SCALE, QUORUM, SCALE),
)
