"""DELLA: drops entries of ΔW at random, the smaller ones of each row more often."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.element_wise.dare import restored
from optimizer.merging.methods.element_wise.ties import agreed
from optimizer.merging.methods.method import Settings
from optimizer.merging.methods.weighted_sum import summed


def della_linear(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Returns Σ wᵢ · magprune(ΔWᵢ): MAGPRUNE of DELLA-Merging (arXiv 2406.11617) before task arithmetic.

    Reads ``density`` (mean probability to keep an entry), ``epsilon``, ``rescale`` and ``seed``.
    """
    return summed(sampled(deltas.dense, deltas, settings), deltas.columns)


def della_ties(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Returns DELLA-Merging (arXiv 2406.11617): MAGPRUNE, then election and fusion as in TIES.

    Reads the settings of ``della_linear`` and ``ties``.
    """
    return agreed(sampled(deltas.dense, deltas, settings), deltas.columns, settings)


def sampled(values: Slabs, deltas: Deltas, settings: Settings) -> Slabs:
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
