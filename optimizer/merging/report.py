"""Merge report: norms, errors and cosines of the merged ΔW, computed without rendering an image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from optimizer.adapters.adapter import Adapter
from optimizer.merging.algebra.lowrank import LowRank, concatenated, distance, inner
from optimizer.merging.blocks.maps import block_of, family_of
from optimizer.merging.common_base import common_base
from optimizer.merging.merge import Merger
from optimizer.merging.module_batches import Stack, stack_of
from optimizer.merging.recipe import Recipe
from optimizer.merging.router import Router


@dataclass(frozen=True)
class Fidelity:
    """Fidelity of one module, or of all modules concatenated into one vector.

    Norms are Frobenius norms; a cosine with a zero change is 0.

    Attributes:
        norm: ‖merged‖.
        ideal_norm: ‖ideal‖, where ideal is what the method computes before it is compressed to the recipe's rank.
        error: ‖merged − ideal‖ / ‖ideal‖.
        energy: ‖merged‖² / ‖ideal‖², the share of energy that compression kept.
        cosine_sum: cosine of merged and the weighted sum of the sources, block weights included.
        cosine_sources: cosine of merged and each source.
        source_norms: ‖ΔWᵢ‖ of each source at reference strength.
    """

    norm: float
    ideal_norm: float
    error: float
    energy: float
    cosine_sum: float
    cosine_sources: tuple[float, ...]
    source_norms: tuple[float, ...]


@dataclass(frozen=True)
class MergeReport:
    """Fidelity of a merge, in total and per module.

    Attributes:
        total: fidelity over all modules of all sources; modules that the merge leaves out count as 0.
        modules: canonical module path → fidelity of that module.
        idle_blocks: for each source, the names in its block weights that match none of its modules.
    """

    total: Fidelity
    modules: Mapping[str, Fidelity]
    idle_blocks: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Products:
    """Inner products of one module: merged, ideal, weighted sum (``plain``) and sources. They add up over modules.

    ``lost`` is ‖merged − ideal‖².
    """

    merged: float = 0.0
    ideal: float = 0.0
    lost: float = 0.0
    plain: float = 0.0
    merged_plain: float = 0.0
    sources: tuple[float, ...] = field(default=())
    merged_sources: tuple[float, ...] = field(default=())


@torch.no_grad()
def merge_report(
    adapters: Sequence[Adapter],
    recipe: Recipe,
    merged: Adapter,
    *,
    device: str | torch.device = "cpu",
    routers: Iterable[Router] = (),
) -> MergeReport:
    """Compares a merged adapter with the exact result of its recipe.

    ``merged`` may be the result of ``merge`` or an adapter read from a file; a module that it lacks counts as zero. No dense matrix is
    formed for methods whose result has low rank.

    Raises:
        RecipeError: the recipe does not match the sources.
    """
    merger = Merger(adapters, device, keep=False, routers=routers)
    bound = recipe.bound_to(adapters)
    products: dict[str, _Products] = {}
    for routed in merger.stacks(bound):
        products |= _compared(merger, _sources_at(adapters, routed), routed, bound, merged)
    for path in merged.modules.keys() - products.keys():
        own, none = merged.modules[path].norm() ** 2, (0.0,) * len(adapters)
        products[path] = _Products(merged=own, lost=own, sources=none, merged_sources=none)
    return MergeReport(
        total=_fidelity(list(products.values())),
        modules={path: _fidelity([products[path]]) for path in sorted(products)},
        idle_blocks=_idle_blocks(adapters, recipe),
    )


def _sources_at(adapters: Sequence[Adapter], routed: Stack) -> Stack:
    """Returns a stack of the sources as they are in the modules of a routed stack; without terms where only a correction changes them."""
    if any(routed.paths[0] in adapter.modules for adapter in adapters):
        return stack_of(adapters, routed.paths, routed.terms[0].up.device)
    return replace(routed, members=(), terms=())


def _compared(merger: Merger, stack: Stack, routed: Stack, recipe: Recipe, merged: Adapter) -> dict[str, _Products]:
    """Returns the inner products of every module of a stack, which the recipe's router turns into ``routed``."""
    found = _gathered(merged, routed)
    none = LowRank(found.up[..., :0], found.down[:, :0])
    weights = merger.weights(recipe, routed)[list(stack.members)].to(found.up.device)
    plain = concatenated(stack.terms, weights) if stack.terms else none
    ideals = _ideal_products(merger, routed, recipe, found)
    count = len(recipe.weights)
    own, along = torch.zeros(2, count, len(stack.paths), dtype=torch.float64)
    for index, term in zip(stack.members, stack.terms, strict=True):
        own[index], along[index] = inner(term, term).cpu(), inner(found, term).cpu()
    mine, sums, both = inner(found, found).tolist(), inner(plain, plain).tolist(), inner(found, plain).tolist()
    return {
        path: _Products(
            merged=mine[i],
            ideal=ideals[path][0] if path in ideals else 0.0,
            lost=ideals[path][1] if path in ideals else mine[i],
            plain=sums[i],
            merged_plain=both[i],
            sources=tuple(own[:, i].tolist()),
            merged_sources=tuple(along[:, i].tolist()),
        )
        for i, path in enumerate(stack.paths)
    }


def _ideal_products(merger: Merger, stack: Stack, recipe: Recipe, found: LowRank) -> dict[str, tuple[float, float]]:
    """Returns ‖ideal‖² and ‖merged − ideal‖² for every module that has a source with nonzero weight."""
    place = {path: i for i, path in enumerate(stack.paths)}
    products: dict[str, tuple[float, float]] = {}
    for deltas in merger.deltas_at(recipe, stack):
        ideal = recipe.method_record.function(deltas, recipe)
        where = torch.tensor([place[path] for path in deltas.paths], device=found.up.device)
        missed = distance(LowRank(found.up[where], found.down[where]), ideal)
        products |= dict(zip(deltas.paths, zip(inner(ideal, ideal).tolist(), missed.tolist(), strict=True), strict=True))
    return products


def _gathered(merged: Adapter, stack: Stack) -> LowRank:
    """Returns the merged factors of a stack's modules, zero-padded to a common rank."""
    near = stack.terms[0]
    modules = [merged.modules.get(path) for path in stack.paths]
    rank = max((m.rank for m in modules if m is not None), default=1)
    up = torch.zeros(len(modules), near.up.shape[1], rank, device=near.up.device)
    down = torch.zeros(len(modules), rank, near.down.shape[2], device=near.up.device)
    for i, factors in enumerate(modules):
        if factors is not None:
            up[i, :, : factors.rank], down[i, : factors.rank] = factors.up, factors.scale * factors.down.to(down.device, torch.float32)
    return LowRank(up, down)


def _fidelity(parts: Sequence[_Products]) -> Fidelity:
    merged, ideal, plain = (sum(getattr(p, name) for p in parts) for name in ("merged", "ideal", "plain"))
    sources = [sum(column) for column in zip(*(p.sources for p in parts), strict=True)]
    along = [sum(column) for column in zip(*(p.merged_sources for p in parts), strict=True)]
    return Fidelity(
        norm=_root(merged),
        ideal_norm=_root(ideal),
        error=_root(sum(p.lost for p in parts)) / _root(ideal) if ideal > 0 else float(merged > 0),
        energy=merged / ideal if ideal > 0 else float(merged <= 0),
        cosine_sum=_cosine(sum(p.merged_plain for p in parts), merged, plain),
        cosine_sources=tuple(_cosine(a, merged, s) for a, s in zip(along, sources, strict=True)),
        source_norms=tuple(_root(s) for s in sources),
    )


def _root(square: float) -> float:
    return math.sqrt(max(square, 0.0))


def _cosine(product: float, a: float, b: float) -> float:
    return min(1.0, max(-1.0, product / math.sqrt(a * b))) if a > 0 and b > 0 else 0.0


def _idle_blocks(adapters: Sequence[Adapter], recipe: Recipe) -> tuple[tuple[str, ...], ...]:
    base = common_base(adapters)
    idle = []
    for adapter, weights in zip(adapters, recipe.blocks or [{}] * len(adapters), strict=True):
        present = {block_of(path, base) for path in adapter.modules} if weights else set()
        idle.append(tuple(name for name in weights if name not in present | {family_of(b) for b in present}))
    return tuple(idle)
