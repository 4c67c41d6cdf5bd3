"""Anatomy: what one adapter changes, where, how strongly, and in how many directions.

All but the statistics of the stored weights are properties of ΔW, the same for (up, down) and (up·R, R⁻¹·down). No ΔW is formed.
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

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Values:
    """Statistics of the entries of ``up`` and ``down``, taken together; for LyCORIS kinds, of the factors after expansion.

    They tell of the file's numbers, of half precision and of weight decay, and nothing of ΔW.
    """

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Directions:
    """How many directions the modules of a block have and use; medians over them, the upper one of two in the middle.

    Attributes:
        stored: the factors' rank.
        effective: see ``gram.effective_rank``; in [1, stored], 0 for a ΔW of 0.
        for_90, for_99: the least rank that keeps 90 % or 99 % of Σσ².
    """

    stored: int
    effective: float
    for_90: int
    for_99: int


@dataclass(frozen=True)
class BlockAnatomy:
    """One block of the network.

    Attributes:
        name: as in ``blocks.BLOCK_MAPS``.
        modules: how many of the block's modules the adapter changes.
        norm: √Σ‖ΔW‖² over them, Frobenius.
        share: of the adapter's Σ‖ΔW‖², in [0, 1].
        values: of the stored weights.
        directions: of ΔW.
    """

    name: str
    modules: int
    norm: float
    share: float
    values: Values
    directions: Directions


@dataclass(frozen=True)
class Anatomy:
    """One adapter.

    Attributes:
        name: the adapter's.
        total: all modules as one block named ``all``.
        blocks: in the order in which the network runs.
        parts: part of the pipeline (``unet``, ``text_encoder``, …) → its number of modules.
        part_shares: part → share of Σ‖ΔW‖², in [0, 1].
        ranks, alphas, scales: value → number of modules that have it, ascending; a scale is alpha / rank.
        idle: number of modules whose ΔW is 0.
        sufficient_rank: the least rank that, given to every module, keeps 99 % of the adapter's Σ‖ΔW‖²; 0 where this is 0.
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
    """One module: σ² of its ΔW, and of its stored entries number, sum, sum of squares, least and greatest."""

    rank: int
    energy: Tensor
    sums: tuple[int, float, float, float, float]


@torch.no_grad()
def anatomy(adapter: Adapter) -> Anatomy:
    """Measure an adapter; a file of Stable Diffusion XL's size takes seconds.

    Raises:
        RecipeError: there are no named blocks for its base.
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


def paths_by_block(paths: Iterable[str], base: str) -> dict[str, list[str]]:
    """Named block → its module paths; blocks in the order in which the network runs, paths sorted.

    Raises:
        RecipeError: there are no named blocks for this base.
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
