"""Model Breadcrumbs: drops the smallest and the largest entries of ΔW."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.order_statistics import ranked
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.element_wise.ties import MERGEKIT_VOTE, VOTE, VoteSettings, agreed
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.parameter import Parameter
from optimizer.merging.methods.shared_parameters import DENSITY, DensitySettings
from optimizer.merging.methods.weighted_sum import summed

GAMMA = Parameter(
    name="gamma",
    description="Share of the entries of ΔW that breadcrumbs drops because they are the largest.",
    default=0.0,
    start=0.01,
    ge=0,
    lt=1,
    low=0.0,
    high=0.05,
)


class BreadcrumbsSettings(DensitySettings, Protocol):
    """Settings of Model Breadcrumbs."""

    @property
    def gamma(self) -> float: ...


class BreadcrumbsTiesSettings(BreadcrumbsSettings, VoteSettings, Protocol):
    """Settings of Model Breadcrumbs followed by the election of TIES."""


def breadcrumbs(deltas: Deltas, settings: BreadcrumbsSettings, /) -> Tensor:
    """Returns Σ wᵢ · mask(ΔWᵢ): Model Breadcrumbs (arXiv 2312.06795).

    Reads ``density``, the share of entries kept of each source, and ``gamma``, the share of largest entries that is dropped.
    """
    return summed(crumbs(deltas.dense, settings), deltas.columns)


def breadcrumbs_ties(deltas: Deltas, settings: BreadcrumbsTiesSettings, /) -> Tensor:
    """Returns TIES with the mask of Model Breadcrumbs in place of the trimming step, as in mergekit.

    Reads the settings of ``breadcrumbs`` and ``ties``.
    """
    return agreed(crumbs(deltas.dense, settings), deltas.columns, settings)


def crumbs(values: Slabs, settings: BreadcrumbsSettings) -> Slabs:
    """Returns each source's entries without the ⌊γ · entries⌋ largest, and without the smallest, so that ⌊density · entries⌋ remain.

    If density + γ exceeds 1, fewer of the largest entries are dropped. With γ = 0 none of them is dropped.
    """
    bounds = [_bounds(values.magnitudes(source), settings) for source in range(values.count)]

    def keep(source: int, rows: slice) -> Tensor:
        value, (low, high) = values.rows(source, rows), bounds[source]
        size = value.abs()
        return value.mul_(size.clone().ge_(low)).mul_(size.lt_(high))

    return replace(values, rows=keep)


def _bounds(magnitudes: Tensor, settings: BreadcrumbsSettings) -> tuple[Tensor, Tensor]:
    """Returns the smallest magnitude that is kept and the smallest that is dropped as too large, (b, 1, 1) each."""
    count = magnitudes.shape[1]
    kept = max(1, int(settings.density * count))
    dropped = min(int(settings.gamma * count), count - kept)
    low = ranked(magnitudes, dropped + kept)
    # The upper bound is exclusive, so that entries of equal magnitude are all kept or all dropped.
    return low, ranked(magnitudes, dropped) if dropped else torch.full_like(low, torch.inf)


BREADCRUMBS = Method(
    "breadcrumbs",
    breadcrumbs,
    "Model Breadcrumbs, arXiv 2312.06795",
    "Σ wᵢ·mask(ΔWᵢ), without the largest and the smallest entries",
    (DENSITY, GAMMA),
    linear=True,
    reproduces=("mergekit: breadcrumbs where γ drops an entry or more (where it drops none, mergekit drops all)",),
)
BREADCRUMBS_TIES = Method(
    "breadcrumbs_ties",
    breadcrumbs_ties,
    "Model Breadcrumbs, arXiv 2312.06795, then TIES, arXiv 2306.01708, algorithm 1, steps 2 and 3",
    "ties with breadcrumbs' mask for trim(ΔWᵢ)",
    (DENSITY, GAMMA, *VOTE),
    reproduces=(f"mergekit: {MERGEKIT_VOTE}; where γ drops an entry or more",),
)
