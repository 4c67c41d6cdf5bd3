"""Sizes: how many components each module of a merge keeps, within what a recipe allows.

A component of a module of shape (out, fan_in) holds the energy σ² and costs out + fan_in numbers, or more where the file's dialect keeps
several modules in one weight: the dearest dialect counts, since a recipe does not say which one will be written. Where modules compete,
those components stay that hold most energy a number, which for a given size of all gives up the least energy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.names.dialects import written_rows
from optimizer.errors import RecipeError
from optimizer.merging.algebra.gram import energies, rank_for

# What a safetensors header spends on the names, shapes and offsets of a module's three tensors, and on metadata.
_HEADER, _PER_MODULE = 16_000, 600


class Limits(Protocol):
    """What a recipe says about the size of the result; each field is explained at ``Recipe``."""

    @property
    def prune(self) -> float: ...
    @property
    def target_mb(self) -> float | None: ...
    @property
    def itemsize(self) -> int: ...


@dataclass(frozen=True)
class Spectrum:
    """What one module's components hold and cost.

    Attributes:
        energy: σ², descending, (p,), fp64, on the CPU.
        cost: numbers that a component takes in a file, out + fan_in or more.
    """

    energy: Tensor
    cost: int


def rank_within(energy: Tensor, share: float, whole: float) -> int:
    """The least rank, at least 1, that keeps a share of a module's energy, or all components where they hold less.

    Args:
        energy: σ² of the components at hand, descending.
        share: in (0, 1].
        whole: energy of the module's change, of which the components may be a part.
    """
    held = float(energy.sum())
    return max(1, rank_for(energy, min(1.0, share * whole / held))) if held > 0 else 1


def allotted(spectra: Mapping[str, Spectrum], limits: Limits) -> dict[str, int]:
    """The rank of each module, at least 1, after ``prune`` and ``target_mb``.

    Raises:
        RecipeError: not even rank 1 everywhere fits the size asked for.
    """
    order = _by_worth(spectra)
    ranks = _pruned(spectra, order, limits.prune)
    if limits.target_mb is not None:
        ranks = _fitted(spectra, order, ranks, limits.target_mb, limits.itemsize)
    return ranks


@dataclass(frozen=True)
class Pruned:
    """What a merge loses and saves when it gives up a share of its energy.

    Attributes:
        share: of Σσ² that may go, as in ``prune``.
        error: ‖lost‖ / ‖merge‖, at most √share.
        numbers: that are left to store.
    """

    share: float
    error: float
    numbers: int


def prune_curve(merged: Adapter, shares: Sequence[float]) -> list[Pruned]:
    """What each share would lose and save, from the merged factors alone; nothing is cut."""
    spectra = {
        path: Spectrum(energies(f).cpu(), written_rows(path, f.shape, merged.base) + f.down.shape[1]) for path, f in merged.modules.items()
    }
    whole = sum(float(s.energy.sum()) for s in spectra.values())
    curve = []
    for share in shares:
        ranks = _pruned(spectra, _by_worth(spectra), share)
        lost = sum(float(s.energy[ranks[path] :].sum()) for path, s in spectra.items())
        numbers = sum(ranks[path] * s.cost for path, s in spectra.items())
        curve.append(Pruned(share, math.sqrt(lost / whole) if whole else 0.0, numbers))
    return curve


def _pruned(spectra: Mapping[str, Spectrum], order: Sequence[tuple[str, int]], share: float) -> dict[str, int]:
    ranks = {path: len(s.energy) for path, s in spectra.items()}
    left = share * sum(float(s.energy.sum()) for s in spectra.values())
    for path, index in reversed(order):
        left -= float(spectra[path].energy[index])
        if left < 0:
            break
        ranks[path] = index
    return ranks


def _by_worth(spectra: Mapping[str, Spectrum]) -> list[tuple[str, int]]:
    """All components but each module's first, by energy per number, descending; those of a module stay in their order, also where
    rounding makes a later one greater, as it does throughout a flat spectrum."""
    names = list(spectra)
    worth = torch.cat([s.energy.cummin(0).values[1:] / s.cost for s in spectra.values()])
    owner = torch.cat([torch.full((max(0, len(s.energy) - 1),), i) for i, s in enumerate(spectra.values())])
    index = torch.cat([torch.arange(1, len(s.energy)) for s in spectra.values()])
    turn = worth.argsort(descending=True, stable=True).tolist()
    owners, indices = owner.tolist(), index.tolist()
    return [(names[owners[i]], indices[i]) for i in turn]


def _fitted(
    spectra: Mapping[str, Spectrum], order: list[tuple[str, int]], most: Mapping[str, int], megabytes: float, each: int
) -> dict[str, int]:
    room = math.floor((megabytes * 1e6 - _HEADER - _PER_MODULE * len(spectra)) / each) - sum(s.cost for s in spectra.values())
    if room < 0:
        least = (-room * each / 1e6) + megabytes
        raise RecipeError(
            f"{megabytes:g} MB do not hold rank 1 in all {len(spectra)} modules",
            where="recipe: target_mb",
            remedy=f"allow {math.ceil(least * 100) / 100:g} MB or more, or give blocks the weight 0",
        )
    ranks = dict.fromkeys(spectra, 1)
    for path, index in order:
        cost = spectra[path].cost
        if index < most[path] and index == ranks[path] and cost <= room:
            ranks[path], room = index + 1, room - cost
    return ranks
