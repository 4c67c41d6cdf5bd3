"""Model breadcrumbs: drop the smallest entries of ΔW, and the very largest ones too."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.order_statistics import ranked
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.method import Settings
from optimizer.merging.methods.ties import agreed
from optimizer.merging.methods.weighted_sum import summed


def breadcrumbs(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Σ wᵢ · mask(ΔWᵢ): Model Breadcrumbs (arXiv 2312.06795).

    Reads ``density``, the share of entries kept of each source, and ``gamma``, the share of the largest that is dropped.
    """
    return summed(crumbs(deltas.dense, settings), deltas.columns)


def breadcrumbs_ties(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Breadcrumbs' mask in the place of the trimming step of TIES, as mergekit has it. Reads what ``breadcrumbs`` and ``ties`` read."""
    return agreed(crumbs(deltas.dense, settings), deltas.columns, settings)


def crumbs(values: Slabs, settings: Settings) -> Slabs:
    """Each source's entries but the ⌊γ · entries⌋ largest and as many of the smallest that ⌊density · entries⌋ remain.

    Where density and γ together exceed 1, fewer of the largest are dropped. γ = 0 drops none of them.
    """
    bounds = [_bounds(values.magnitudes(source), settings) for source in range(values.count)]

    def keep(source: int, rows: slice) -> Tensor:
        value, (low, high) = values.rows(source, rows), bounds[source]
        size = value.abs()
        return value.mul_(size.clone().ge_(low)).mul_(size.lt_(high))

    return replace(values, rows=keep)


def _bounds(magnitudes: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The least magnitude that stays and the least that is too large, (b, 1, 1) each."""
    count = magnitudes.shape[1]
    kept = max(1, int(settings.density * count))
    dropped = min(int(settings.gamma * count), count - kept)
    low = ranked(magnitudes, dropped + kept)
    # The entry above the greatest that stays bounds it from outside, so that equal magnitudes share their fate.
    return low, ranked(magnitudes, dropped) if dropped else torch.full_like(low, torch.inf)
