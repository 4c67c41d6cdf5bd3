"""DELLA: drop entries of ΔW at random, the smaller ones of each row more often."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from optimizer.merging.deltas import Deltas, Values
from optimizer.merging.methods.dare import rescaled
from optimizer.merging.methods.method import Settings
from optimizer.merging.methods.ties import agreed
from optimizer.merging.methods.weighted_sum import summed

_ROWS = 1024  # sorted at once: indices take twice the memory of what they sort


def della_linear(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Σ wᵢ · magprune(ΔWᵢ): MAGPRUNE of DELLA-Merging (arXiv 2406.11617) before task arithmetic.

    Reads ``density`` (mean probability to keep an entry), ``epsilon``, ``rescale`` and ``seed``.
    """
    return summed(sampled(deltas.dense, deltas, settings), deltas.columns)


def della_ties(deltas: Deltas, settings: Settings, /) -> Tensor:
    """DELLA-Merging (arXiv 2406.11617): MAGPRUNE, then election and fusion as in TIES.

    Reads what ``della_linear`` and ``ties`` read.
    """
    return agreed(sampled(deltas.dense, deltas, settings), deltas.columns, settings)


def sampled(values: Values, deltas: Deltas, settings: Settings) -> Values:
    """The sources' values with entries dropped at random, each kept with the probability that its rank in its row gives it.

    ``rescale`` = ``inverse`` divides every survivor by its own probability (the paper), ``l1`` restores each source's
    L1 norm (mergekit), ``none`` leaves it.
    """

    def sample() -> Iterator[Tensor]:
        for source, value in enumerate(values()):
            chance = keep_probabilities(value, settings.density, settings.epsilon)
            kept = deltas.uniform(settings.seed, source, value) < chance
            yield rescaled(value, kept, settings, chance.reciprocal_().nan_to_num_(posinf=0.0))

    return sample


def keep_probabilities(value: Tensor, density: float, epsilon: float) -> Tensor:
    """How probably each entry is kept: from density − ε for the least of its row to density + ε for the greatest, linear in the rank.

    The window shrinks where it would leave [0, 1], where mergekit refuses; else this is its formula, with the same ε.

    Args:
        value: (b, rows, columns).
        density: mean probability.
        epsilon: half the window's width.
    """
    half, columns = min(epsilon, density, 1 - density), value.shape[-1]
    chances = torch.linspace(density - half, density + half, columns, device=value.device) if columns > 1 else value.new_tensor([density])
    chance = torch.empty_like(value)
    for rows, out in zip(torch.split(value.flatten(0, 1), _ROWS), torch.split(chance.flatten(0, 1), _ROWS), strict=True):
        order = rows.abs().argsort(dim=1, stable=True)
        out.scatter_(1, order, chances.expand(len(rows), -1))
    return chance
