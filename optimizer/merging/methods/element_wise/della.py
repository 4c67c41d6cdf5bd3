"""DELLA: drops entries of ΔW at random, the smaller ones of each row more often."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.element_wise.dare import MERGEKIT, MERGEKIT_RESCALE, RESCALE, DareSettings, restored
from optimizer.merging.methods.element_wise.ties import MERGEKIT_VOTE, VOTE, VoteSettings, agreed
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.parameter import Parameter
from optimizer.merging.methods.shared_parameters import DENSITY
from optimizer.merging.methods.weighted_sum import summed

EPSILON = Parameter(
    name="epsilon",
    description="How much DELLA prefers large entries: the smallest of a row are kept with probability density − ε, the largest with "
    "density + ε.",
    default=0.0,
    start=0.1,
    ge=0,
    lt=1,
    low=0.0,
    high=0.2,
)


class DellaSettings(DareSettings, Protocol):
    """Settings of MAGPRUNE."""

    @property
    def epsilon(self) -> float: ...


class DellaTiesSettings(DellaSettings, VoteSettings, Protocol):
    """Settings of MAGPRUNE followed by the election of TIES."""


def della_linear(deltas: Deltas, settings: DellaSettings, /) -> Tensor:
    """Returns Σ wᵢ · magprune(ΔWᵢ): MAGPRUNE of DELLA-Merging (arXiv 2406.11617) before task arithmetic.

    Reads ``density`` (mean probability to keep an entry), ``epsilon``, ``rescale`` and ``seed``.
    """
    return summed(sampled(deltas.dense, deltas, settings), deltas.columns)


def della_ties(deltas: Deltas, settings: DellaTiesSettings, /) -> Tensor:
    """Returns DELLA-Merging (arXiv 2406.11617): MAGPRUNE, then election and fusion as in TIES.

    Reads the settings of ``della_linear`` and ``ties``.
    """
    return agreed(sampled(deltas.dense, deltas, settings), deltas.columns, settings)


def sampled(values: Slabs, deltas: Deltas, settings: DellaSettings) -> Slabs:
    """Returns the sources' values with entries dropped at random; the keep probability depends on the rank of an entry in its row.

    ``rescale`` = ``inverse`` divides every kept entry by its own probability (the paper), ``l1`` restores each source's L1 norm
    (mergekit), ``none`` leaves the entries unchanged.
    """
    draws = [deltas.uniform(settings.seed, source) for source in range(values.count)]

    def sample(source: int, rows: slice) -> Tensor:
        value = values.rows(source, rows)
        chance = keep_probabilities(value, settings.density, settings.epsilon)
        value.mul_(draws[source](rows, value.shape[2]).lt_(chance))
        return value.mul_(chance.reciprocal_().nan_to_num_(posinf=0.0)) if settings.rescale == "inverse" else value

    kept = replace(values, rows=sample)
    return restored(kept, values) if settings.rescale == "l1" else kept


def keep_probabilities(value: Tensor, density: float, epsilon: float) -> Tensor:
    """Returns each entry's keep probability: from density − ε for the smallest of its row to density + ε for the largest, linear in rank.

    The window is narrowed where it would leave [0, 1], where mergekit raises an error; otherwise the formula and ε are those of mergekit.

    Args:
        value: entries, (b, rows, columns).
        density: mean probability.
        epsilon: half the width of the window.
    """
    half, columns = min(epsilon, density, 1 - density), value.shape[-1]
    chances = torch.linspace(density - half, density + half, columns, device=value.device) if columns > 1 else value.new_tensor([density])
    order = value.abs().argsort(dim=2, stable=True)
    return torch.empty_like(value).scatter_(2, order, chances.expand(value.shape))


DELLA_LINEAR = Method(
    "della_linear",
    della_linear,
    "MAGPRUNE of DELLA, arXiv 2406.11617",
    "Σ wᵢ·magprune(ΔWᵢ)",
    (DENSITY, EPSILON, RESCALE),
    linear=True,
    seeded=True,
    reproduces=(MERGEKIT + MERGEKIT_RESCALE,),
)
DELLA_TIES = Method(
    "della_ties",
    della_ties,
    "DELLA, arXiv 2406.11617",
    "ties with magprune(ΔWᵢ) for trim(ΔWᵢ)",
    (DENSITY, EPSILON, RESCALE, *VOTE),
    seeded=True,
    reproduces=(f"{MERGEKIT}{MERGEKIT_VOTE}; {MERGEKIT_RESCALE}; its name is della",),
)
