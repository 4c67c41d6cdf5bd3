"""DARE: drop entries of ΔW at random and rescale the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.merging.deltas import Deltas
from optimizer.merging.methods.method import Settings
from optimizer.merging.methods.ties import agreed


def dare(deltas: Deltas, settings: Settings, /) -> Tensor:
    """Σ wᵢ · dare(ΔWᵢ): DARE (arXiv 2311.03099, equation 1) before task arithmetic.

    Reads ``density`` (the probability to keep an entry, 1 − p of the paper), ``rescale`` and ``seed``.
    """
    return (deltas.column() * dropped(deltas, settings)).sum(dim=0)


def dare_ties(deltas: Deltas, settings: Settings, /) -> Tensor:
    """DARE (arXiv 2311.03099) in the place of the trimming step of TIES (arXiv 2306.01708, algorithm 1).

    Reads what ``dare`` and ``ties`` read.
    """
    return agreed(dropped(deltas, settings), deltas.column(), settings)


def dropped(deltas: Deltas, settings: Settings) -> Tensor:
    """The sources with entries dropped at random, (n, out, fan_in), fp32.

    ``rescale`` says how survivors make up for the dropped: ``inverse`` divides by the density, which keeps the expectation (the
    paper); ``l1`` restores each source's L1 norm (mergekit); ``none`` leaves them as they are.
    """
    values = deltas.dense()
    kept = values * keep_masks(deltas, settings)
    if settings.rescale == "inverse":
        return kept / settings.density
    if settings.rescale == "l1":
        before, after = values.abs().sum(dim=(1, 2), keepdim=True), kept.abs().sum(dim=(1, 2), keepdim=True)
        return torch.where(after > 0, kept * (before / after), kept)
    return kept


def keep_masks(deltas: Deltas, settings: Settings) -> Tensor:
    """Which entries survive, (n, out, fan_in), bool: Bernoulli(density), drawn for each source and module apart."""
    factors = deltas.factors[0]
    size = (factors.up.shape[0], factors.down.shape[1])
    draws = [torch.rand(size, generator=generator) for generator in deltas.generators(settings.seed)]
    return (torch.stack(draws) < settings.density).to(factors.up.device)
