"""Magnitude pruning: keeps only the largest entries of each source's ΔW."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.order_statistics import ranked
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.shared_parameters import DENSITY, DensitySettings
from optimizer.merging.methods.weighted_sum import summed


def magnitude_prune(deltas: Deltas, settings: DensitySettings, /) -> Tensor:
    """Returns Σ wᵢ · trim(ΔWᵢ): the trimming step of TIES (arXiv 2306.01708, section 3, step 1) without its election.

    Reads ``density``, the share of entries kept of each source.
    """
    return summed(trimmed(deltas.dense, settings.density), deltas.columns)


def trimmed(values: Slabs, density: float) -> Slabs:
    """Returns each source's entries of largest magnitude, with the rest set to 0.

    ⌊density · entries⌋ of each source and module are kept, at least one. Entries that equal the smallest kept magnitude are kept too, so
    the result does not depend on how a device breaks ties.
    """
    if density == 1:
        return values
    kept = max(1, int(density * values.shape[1] * values.shape[2]))
    limits = [ranked(values.magnitudes(source), kept) for source in range(values.count)]

    def trim(source: int, rows: slice) -> Tensor:
        value = values.rows(source, rows)
        return value.mul_(value.abs().ge_(limits[source]))

    return replace(values, rows=trim)


MAGNITUDE_PRUNE = Method(
    "magnitude_prune",
    magnitude_prune,
    "TIES, arXiv 2306.01708, section 3, step 1",
    "Σ wᵢ·trim(ΔWᵢ)",
    (DENSITY,),
    linear=True,
    reproduces=("PEFT: magnitude_prune_svd at the same rank",),
)
