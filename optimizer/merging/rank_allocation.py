"""Rank allocation: how many components each module of a merge keeps, within the limits of a recipe.

A component of a module of shape (out, fan_in) has the energy σ² and costs out + fan_in numbers, or more if the file format stores
several modules in one weight. The most expensive format is assumed, since a recipe does not say which one will be written. If modules
compete for a total size, the components with the most energy per stored number are kept, which loses the least energy for that size.
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

# Estimated bytes of a safetensors header: metadata, and names, shapes and offsets of a module's three tensors.
_HEADER, _PER_MODULE = 16_000, 600


class Limits(Protocol):
    """Size limits that a recipe sets; the fields are documented in ``Recipe``."""

    @property
    def prune(self) -> float: ...
    @property
    def target_mb(self) -> float | None: ...
    @property
    def itemsize(self) -> int: ...


@dataclass(frozen=True)
class Spectrum:
    """Energies and storage cost of one module's components.

    Attributes:
        energy: σ², descending, (p,), fp64, on the CPU.
        cost: numbers stored per component in a file, out + fan_in or more.
    """

    energy: Tensor
    cost: int


def rank_within(energy: Tensor, share: float, whole: float) -> int:
    """Returns the smallest rank, at least 1, that keeps a share of a module's energy, or the full rank if the components hold less.

    Args:
        energy: σ² of the available components, descending.
        share: share of the energy to keep, in (0, 1].
        whole: total energy of the module's ΔW; the available components may hold only a part of it.
    """
    held = float(energy.sum())
    return max(1, rank_for(energy, min(1.0, share * whole / held))) if held > 0 else 1


def allotted(spectra: Mapping[str, Spectrum], limits: Limits) -> dict[str, int]:
    """Returns the rank of each module, at least 1, after ``prune`` and ``target_mb``.

    Raises:
        RecipeError: rank 1 in all modules already exceeds the target size.
    """
    order = _by_worth(spectra)
    ranks = _pruned(spectra, order, limits.prune)
    if limits.target_mb is not None:
        ranks = _fitted(spectra, order, ranks, limits.target_mb, limits.itemsize)
    return ranks


@dataclass(frozen=True)
class Pruned:
    """Error and size of a merge after a share of its energy is pruned.

    Attributes:
        share: share of Σσ² that may be removed, as in ``prune``.
        error: ‖lost‖ / ‖merge‖, at most √share.
        numbers: count of numbers left to store.
    """

    share: float
    error: float
    numbers: int


def prune_curve(merged: Adapter, shares: Sequence[float]) -> list[Pruned]:
    """Returns the error and size that each share would give, computed from the merged factors; the adapter is not changed."""
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
    """Returns all components except each module's first, sorted by descending energy per stored number.

    Components of one module keep their order, even if rounding makes a later one larger, as in a flat spectrum.
    """
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
