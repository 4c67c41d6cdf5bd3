"""Anatomy: location, strength and rank of the changes of one adapter.

All values except the statistics of the stored weights are properties of ΔW, invariant under (up, down) → (up·R, R⁻¹·down). No ΔW is
formed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, median_high
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.merging.algebra.gram import effective_rank, energies, rank_for
from optimizer.merging.blocks.maps import block_map, block_of
from optimizer.merging.merge import shared_modules

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Values:
    """Statistics of the entries of ``up`` and ``down`` together; for LyCORIS kinds, of the expanded factors.

    They describe the stored values (half precision, weight decay), not ΔW.
    """

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Directions:
    """Ranks of the modules of a block; medians over the modules, the upper median for integers.

    Attributes:
        stored: rank of the stored factors.
        effective: effective rank (``gram.effective_rank``), in [1, stored]; 0 for ΔW = 0.
        for_90, for_99: least rank that keeps 90 % or 99 % of Σσ².
    """

    stored: int
    effective: float
    for_90: int
    for_99: int


@dataclass(frozen=True)
class BlockAnatomy:
    """One block of the network.

    Attributes:
        name: block name, as in ``blocks.BLOCK_MAPS``.
        modules: number of the block's modules that the adapter changes.
        norm: √Σ‖ΔW‖² over the changed modules (Frobenius norm).
        share: share of the adapter's Σ‖ΔW‖², in [0, 1].
        values: statistics of the stored weights.
        directions: ranks of ΔW.
    """

    name: str
    modules: int
    norm: float
    share: float
    values: Values
    directions: Directions


@dataclass(frozen=True)
class Anatomy:
    """Measurements of one adapter.

    Attributes:
        name: name of the adapter.
        total: all modules as one block named ``all``.
        blocks: blocks, in network order.
        parts: pipeline part (``unet``, ``text_encoder``, …) → number of modules.
        part_shares: part → share of Σ‖ΔW‖², in [0, 1].
        ranks, alphas, scales: value → number of modules with this value, ascending; a scale is alpha / rank.
        idle: number of modules whose ΔW is 0.
        sufficient_rank: least rank for all modules that keeps 99 % of the adapter's Σ‖ΔW‖²; 0 if that sum is 0.
    """

    name: str
    total: BlockAnatomy
    blocks: tuple[BlockAnatomy, ...]
    parts: Mapping[str, int]
    part_shares: Mapping[str, float]
    ranks: Mapping[int, int]
    alphas: Mapping[float, int]
    scales: Mapping[float, int]
    idle: int
    sufficient_rank: int


@dataclass(frozen=True)
class _Module:
    """One module: σ² of its ΔW, and number, sum, sum of squares, minimum and maximum of its stored entries."""

    rank: int
    energy: Tensor
    sums: tuple[int, float, float, float, float]


@torch.no_grad()
def anatomy(adapter: Adapter) -> Anatomy:
    """Measures an adapter; a file of Stable Diffusion XL's size takes seconds.

    Raises:
        RecipeError: the base model family has no named blocks.
    """
    modules = {path: _Module(f.rank, energies(f), _sums(f)) for path, f in adapter.modules.items()}
    factors = adapter.modules.values()
    whole = _energy(modules.values())
    blocks = paths_by_block(modules, adapter.base)
    parts = {part: [m for path, m in modules.items() if _part_of(path) == part] for part in dict.fromkeys(map(_part_of, modules))}
    return Anatomy(
        name=adapter.name,
        total=_block("all", list(modules.values()), whole),
        blocks=tuple(_block(name, [modules[path] for path in paths], whole) for name, paths in blocks.items()),
        parts={part: len(group) for part, group in parts.items()},
        part_shares={part: _share(_energy(group), whole) for part, group in parts.items()},
        ranks=_counted(f.rank for f in factors),
        alphas=_counted(f.alpha for f in factors),
        scales=_counted(f.scale for f in factors),
        idle=sum(not float(m.energy.sum()) for m in modules.values()),
        sufficient_rank=_sufficient_rank([m.energy for m in modules.values()]),
    )


def balanced_weights(norms: Sequence[float]) -> tuple[float, ...] | None:
    """Returns the weights with sum 1 at which changes are equally strong, wₐ‖ΔWₐ‖ = w_b‖ΔW_b‖ = …; None if one of them is 0.

    Args:
        norms: norm ‖ΔW‖ of each change.

    Example:
        >>> balanced_weights([3.0, 1.0])
        (0.25, 0.75)
    """
    if not all(norm > 0 for norm in norms):
        return None
    inverse = [min(norms) / norm for norm in norms]
    return tuple(each / sum(inverse) for each in inverse)


def norms_together(adapters: Sequence[Adapter]) -> tuple[float, ...]:
    """Returns the strength of each adapter, √Σ‖ΔW‖² over the modules that all of them change; 0 if there is none."""
    shared = shared_modules(adapters)
    return tuple(math.sqrt(sum(adapter.modules[path].norm() ** 2 for path in shared)) for adapter in adapters)


def paths_by_block(paths: Iterable[str], base: str) -> dict[str, list[str]]:
    """Returns block name → module paths; blocks in network order, paths sorted.

    Raises:
        RecipeError: the base model family has no named blocks.
    """
    found: dict[str, list[str]] = {name: [] for name in block_map(base).names}
    for path in sorted(paths):
        found.setdefault(block_of(path, base), []).append(path)
    return {name: group for name, group in found.items() if group}


def _part_of(path: str) -> str:
    return path.partition(".")[0]


def _counted(values: Iterable[_Number]) -> dict[_Number, int]:
    return dict(sorted(Counter(values).items()))


def _energy(modules: Iterable[_Module]) -> float:
    return sum(float(m.energy.sum()) for m in modules)


def _share(energy: float, whole: float) -> float:
    return energy / whole if whole > 0 else 0.0


def _block(name: str, modules: Sequence[_Module], whole: float) -> BlockAnatomy:
    energy = _energy(modules)
    return BlockAnatomy(
        name=name,
        modules=len(modules),
        norm=math.sqrt(energy),
        share=_share(energy, whole),
        values=_values([m.sums for m in modules]),
        directions=Directions(
            stored=median_high([m.rank for m in modules]),
            effective=median([effective_rank(m.energy) for m in modules]),
            for_90=median_high([rank_for(m.energy, 0.9) for m in modules]),
            for_99=median_high([rank_for(m.energy, 0.99) for m in modules]),
        ),
    )


def _sums(factors: Factors) -> tuple[int, float, float, float, float]:
    both = [factors.up.double(), factors.down.double()]
    least, greatest = zip(*(torch.aminmax(t) for t in both), strict=True)
    return (
        sum(t.numel() for t in both),
        sum(float(t.sum()) for t in both),
        sum(float(torch.linalg.vector_norm(t)) ** 2 for t in both),
        float(min(least)),
        float(max(greatest)),
    )


def _values(sums: Sequence[tuple[int, float, float, float, float]]) -> Values:
    counts, firsts, squares, least, greatest = zip(*sums, strict=True)
    count = sum(counts)
    mean = sum(firsts) / count
    return Values(count, mean, math.sqrt(max(sum(squares) / count - mean**2, 0.0)), min(least), max(greatest))


def _sufficient_rank(spectra: Sequence[Tensor]) -> int:
    longest = max(len(energy) for energy in spectra)
    return rank_for(torch.stack([pad(energy, (0, longest - len(energy))) for energy in spectra]).sum(0), 0.99)
