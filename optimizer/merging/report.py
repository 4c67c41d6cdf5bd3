"""What a merge kept and what it lost, in numbers on ΔW alone, before any picture is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from optimizer.adapters.adapter import Adapter
from optimizer.merging.blocks import block_of, family_of
from optimizer.merging.lowrank import Change, concatenated, inner
from optimizer.merging.merge import common_base, deltas_of
from optimizer.merging.recipe import Recipe


@dataclass(frozen=True)
class Fidelity:
    """One module, or all of them as one long vector. Norms are Frobenius norms; a cosine with a zero change is 0.

    Attributes:
        norm: ‖merged‖.
        ideal_norm: ‖ideal‖, where ideal is what the method computes before it is compressed to the recipe's rank.
        error: ‖merged − ideal‖ / ‖ideal‖.
        energy: ‖merged‖² / ‖ideal‖², the share that compression kept.
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
    """What a merge kept.

    Attributes:
        total: over all modules of all sources; those that the merge leaves out count as 0.
        modules: canonical module path → the same for this module.
        idle_blocks: for each source, the names in its block weights that match none of its modules.
    """

    total: Fidelity
    modules: Mapping[str, Fidelity]
    idle_blocks: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Products:
    """Inner products of one module, in the order merged, ideal, weighted sum, sources; sums over modules are sums of products."""

    merged: float = 0.0
    ideal: float = 0.0
    merged_ideal: float = 0.0
    plain: float = 0.0
    merged_plain: float = 0.0
    sources: tuple[float, ...] = field(default=())
    merged_sources: tuple[float, ...] = field(default=())


@torch.no_grad()
def merge_report(adapters: Sequence[Adapter], recipe: Recipe, merged: Adapter) -> MergeReport:
    """Compare a merged adapter with what its recipe asks for.

    ``merged`` may be what ``merge`` returned or a file read back: a module that it lacks counts as zero. For the methods ``linear``
    and ``svd`` no dense matrix is formed.

    Raises:
        RecipeError: recipe and sources do not fit.
    """
    asked = {d.path: d for d in deltas_of(adapters, recipe)}
    function = recipe.method_record.function
    products = {}
    for path in sorted({p for a in (*adapters, merged) for p in a.modules}):
        deltas = asked.get(path)
        ideal = function(deltas, recipe) if deltas else None
        plain = concatenated(deltas.factors, deltas.weights) if deltas else None
        products[path] = _products(merged.modules.get(path), ideal, plain, [a.modules.get(path) for a in adapters])
    return MergeReport(
        total=_fidelity(list(products.values())),
        modules={path: _fidelity([p]) for path, p in products.items()},
        idle_blocks=_idle_blocks(adapters, recipe),
    )


def _products(merged: Change | None, ideal: Change | None, plain: Change | None, sources: Sequence[Change | None]) -> _Products:
    return _Products(
        merged=_inner(merged, merged),
        ideal=_inner(ideal, ideal),
        merged_ideal=_inner(merged, ideal),
        plain=_inner(plain, plain),
        merged_plain=_inner(merged, plain),
        sources=tuple(_inner(s, s) for s in sources),
        merged_sources=tuple(_inner(merged, s) for s in sources),
    )


def _inner(a: Change | None, b: Change | None) -> float:
    return 0.0 if a is None or b is None else inner(a, b)


def _fidelity(parts: Sequence[_Products]) -> Fidelity:
    merged, ideal, plain = (sum(getattr(p, name) for p in parts) for name in ("merged", "ideal", "plain"))
    sources = [sum(column) for column in zip(*(p.sources for p in parts), strict=True)]
    along = [sum(column) for column in zip(*(p.merged_sources for p in parts), strict=True)]
    lost = merged - 2 * sum(p.merged_ideal for p in parts) + ideal
    return Fidelity(
        norm=_root(merged),
        ideal_norm=_root(ideal),
        error=_root(lost) / _root(ideal) if ideal > 0 else float(merged > 0),
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
