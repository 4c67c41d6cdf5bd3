"""DARE: drop entries of ΔW at random and rescale the rest."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from optimizer.merging.deltas import Deltas, Values
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


def dropped(values: Values, deltas: Deltas, settings: Settings) -> Values:
    """The sources' values with entries dropped at random: Bernoulli(density), drawn for each source and module apart.

    ``rescale`` says how survivors make up for the dropped: ``inverse`` divides by the density, which keeps the expectation (the
    paper); ``l1`` restores each source's L1 norm (mergekit); ``none`` leaves them as they are.
    """

    def drop() -> Iterator[Tensor]:
        for source, value in enumerate(values()):
            kept = deltas.uniform(settings.seed, source, value) < settings.density
            yield rescaled(value, kept, settings, 1 / settings.density)

    return drop


def rescaled(value: Tensor, kept: Tensor, settings: Settings, inverse: Tensor | float) -> Tensor:
    """The kept entries, times what ``rescale`` asks for.

    Args:
        value: (b, rows, columns), overwritten.
        kept: the same shape, bool.
        settings: the recipe.
        inverse: 1 / the probability with which an entry was kept.
    """
    before = value.abs().sum(dim=(1, 2), keepdim=True) if settings.rescale == "l1" else None
    value.mul_(kept)
    if before is not None:
        after = value.abs().sum(dim=(1, 2), keepdim=True)
        return value.mul_(before / after.masked_fill(after == 0, 1))
    return value.mul_(inverse) if settings.rescale == "inverse" else value
