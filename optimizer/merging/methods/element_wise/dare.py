"""DARE: drops entries of ΔW at random and rescales the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol, get_args

from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.element_wise.ties import MERGEKIT_VOTE, VOTE, VoteSettings, agreed
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.parameter import Parameter
from optimizer.merging.methods.shared_parameters import DENSITY, DensitySettings, SeedSettings
from optimizer.merging.methods.weighted_sum import summed

Rescale = Literal["inverse", "l1", "none"]

RESCALE = Parameter(
    name="rescale",
    description="How DARE and DELLA make up for the entries that they drop: divide the others by their probability (inverse), scale them "
    "to the L1 norm of all (l1), or leave them as they are (none).",
    default="inverse",
    start="inverse",
    choices=get_args(Rescale),
)
MERGEKIT = "mergekit, but for its random numbers: "
"""Beginning of the lines on mergekit's methods that drop entries at random."""

MERGEKIT_RESCALE = "rescale l1 (its rescale: true) or none"
"""Values of ``rescale`` at which mergekit's formula is the same."""


class DareSettings(DensitySettings, SeedSettings, Protocol):
    """Settings of DARE."""

    @property
    def rescale(self) -> Rescale: ...


class DareTiesSettings(DareSettings, VoteSettings, Protocol):
    """Settings of DARE followed by the election of TIES."""


def dare_linear(deltas: Deltas, settings: DareSettings, /) -> Tensor:
    """Returns Σ wᵢ · dare(ΔWᵢ): DARE (arXiv 2311.03099, equation 1) before task arithmetic.

    Reads ``density`` (the probability to keep an entry, 1 − p of the paper), ``rescale`` and ``seed``.
    """
    return summed(dropped(deltas.dense, deltas, settings), deltas.columns)


def dare_ties(deltas: Deltas, settings: DareTiesSettings, /) -> Tensor:
    """Returns TIES (arXiv 2306.01708, algorithm 1) with DARE (arXiv 2311.03099) in place of the trimming step.

    Reads the settings of ``dare_linear`` and ``ties``.
    """
    return agreed(dropped(deltas.dense, deltas, settings), deltas.columns, settings)


def dropped(values: Slabs, deltas: Deltas, settings: DareSettings) -> Slabs:
    """Returns the sources' values with entries dropped at random: Bernoulli(density), drawn separately for each source and module.

    ``rescale`` sets the scaling of the kept entries: ``inverse`` divides by the density, which preserves the expectation (the
    paper); ``l1`` restores each source's L1 norm (mergekit); ``none`` leaves them unchanged.
    """
    draws = [deltas.uniform(settings.seed, source) for source in range(values.count)]
    factor = 1 / settings.density if settings.rescale == "inverse" else 1.0

    def drop(source: int, rows: slice) -> Tensor:
        value = values.rows(source, rows)
        return value.mul_(draws[source](rows, value.shape[2]).lt_(settings.density)).mul_(factor)

    kept = replace(values, rows=drop)
    return restored(kept, values) if settings.rescale == "l1" else kept


def restored(kept: Slabs, values: Slabs) -> Slabs:
    """Returns the kept entries, rescaled to the original L1 norm of each source and module."""
    factors = []
    for source in range(values.count):
        after = kept.l1(source)
        factors.append(values.l1(source) / after.masked_fill(after == 0, 1))
    return replace(kept, rows=lambda source, rows: kept.rows(source, rows).mul_(factors[source]))


DARE_LINEAR = Method(
    "dare_linear",
    dare_linear,
    "DARE, arXiv 2311.03099, equation 1",
    "Σ wᵢ·drop(ΔWᵢ) / density",
    (DENSITY, RESCALE),
    linear=True,
    seeded=True,
    reproduces=("PEFT, but for its random numbers: dare_linear_svd at the same rank", MERGEKIT + MERGEKIT_RESCALE),
)
DARE_TIES = Method(
    "dare_ties",
    dare_ties,
    "DARE, arXiv 2311.03099, equation 1, then TIES, arXiv 2306.01708, algorithm 1, steps 2 and 3",
    "ties with drop(ΔWᵢ) / density for trim(ΔWᵢ)",
    (DENSITY, RESCALE, *VOTE),
    seeded=True,
    reproduces=(
        "PEFT, but for its random numbers: dare_ties_svd at the same rank",
        f"{MERGEKIT}{MERGEKIT_VOTE}; {MERGEKIT_RESCALE}",
    ),
)
