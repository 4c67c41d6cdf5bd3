"""Model Breadcrumbs: drops the smallest and the largest entries of ΔW."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.order_statistics import ranked
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.element_wise.ties import agreed
from optimizer.merging.methods.method import Settings
from optimizer.merging.methods.weighted_sum import summed


def breadcrumbs(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Returns Σ wᵢ · mask(ΔWᵢ): Model Breadcrumbs (arXiv 2312.06795).

    Reads ``density``, the share of entries kept of each source, and ``gamma``, the share of largest entries that is dropped.
    """
    return summed(crumbs(deltas.dense, settings), deltas.columns)


def breadcrumbs_ties(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Returns TIES with the mask of Model Breadcrumbs in place of the trimming step, as in mergekit.

    Reads the settings of ``breadcrumbs`` and ``ties``.
    """
    return agreed(crumbs(deltas.dense, settings), deltas.columns, settings)


def crumbs(values: Slabs, settings: Settings) -> Slabs:
    """Returns each source's entries without the ⌊γ · entries⌋ largest, and without the smallest, so that ⌊density · entries⌋ remain.

    If density + γ exceeds 1, fewer of the largest entries are dropped. With γ = 0 none of them is dropped.
    """
    bounds = [_bounds(values.magnitudes(source), settings) for source in range(values.count)]

    def keep(source: int, rows: slice) -> Tensor:
        value, (low, high) = values.rows(source, rows), bounds[source]
        size = value.abs()
        return value.mul_(size.clone().ge_(low)).mul_(size.lt_(high))

    return replace(values, rows=keep)


def _bounds(magnitudes: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Returns the smallest magnitude that is kept and the smallest that is dropped as too large, (b, 1, 1) each."""
    count = magnitudes.shape[1]
    kept = max(1, int(settings.density * count))
    dropped = min(int(settings.gamma * count), count - kept)
    low = ranked(magnitudes, dropped + kept)
    # The upper bound is exclusive, so that entries of equal magnitude are all kept or all dropped.
    return low, ranked(magnitudes, dropped) if dropped else torch.full_like(low, torch.inf)
