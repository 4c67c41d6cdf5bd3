"""DARE: drop entries of ΔW at random and rescale the rest."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.method import Settings
from optimizer.merging.methods.ties import agreed
from optimizer.merging.methods.weighted_sum import summed


def dare_linear(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Σ wᵢ · dare(ΔWᵢ): DARE (arXiv 2311.03099, equation 1) before task arithmetic.

    Reads ``density`` (the probability to keep an entry, 1 − p of the paper), ``rescale`` and ``seed``.
    """
    return summed(dropped(deltas.dense, deltas, settings), deltas.columns)


def dare_ties(deltas: Deltas, settings: Settings, /) -> Tensor:
    """DARE (arXiv 2311.03099) in the place of the trimming step of TIES (arXiv 2306.01708, algorithm 1).

    Reads what ``dare_linear`` and ``ties`` read.
    """
    return agreed(dropped(deltas.dense, deltas, settings), deltas.columns, settings)


def dropped(values: Slabs, deltas: Deltas, settings: Settings) -> Slabs:
    """The sources' values with entries dropped at random: Bernoulli(density), drawn for each source and module apart.

    ``rescale`` says how survivors make up for the dropped: ``inverse`` divides by the density, which keeps the expectation (the
    paper); ``l1`` restores each source's L1 norm (mergekit); ``none`` leaves them as they are.
    """
    draws = [deltas.uniform(settings.seed, source) for source in range(values.count)]
    factor = 1 / settings.density if settings.rescale == "inverse" else 1.0

    def drop(source: int, rows: slice) -> Tensor:
        value = values.rows(source, rows)
        return value.mul_(draws[source](rows, value.shape[2]).lt_(settings.density)).mul_(factor)

    kept = replace(values, rows=drop)
    return restored(kept, values) if settings.rescale == "l1" else kept


def restored(kept: Slabs, values: Slabs) -> Slabs:
    """The kept entries, times what gives each source and module its L1 norm back."""
    factors = []
    for source in range(values.count):
        after = kept.l1(source)
        factors.append(values.l1(source) / after.masked_fill(after == 0, 1))
    return replace(kept, rows=lambda source, rows: kept.rows(source, rows).mul_(factors[source]))
