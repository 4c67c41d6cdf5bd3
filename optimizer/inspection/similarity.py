"""Kinship: similarity, shared modules and compatibility of two adapters, computed without forming ΔW."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.adapters.shapes import bare
from optimizer.inspection.strength import balanced_weights, paths_by_block
from optimizer.merging.algebra.gram import spans

SAMPLE = 64
"""Number of rows, and of columns, per module on which signs are compared: 4096 entries estimate the share to about 1 %."""


@dataclass(frozen=True)
class Overlap:
    """Overlap of two subspaces of dimensions p and q in n dimensions; over several modules, numerators and denominators are summed.

    Attributes:
        share: ‖QₐᵀQ_b‖² / min(p, q), the mean squared cosine of the principal angles, in [0, 1]; 0 for orthogonal subspaces, 1 if one
            contains the other.
        chance: expected share of random subspaces, (p·q/n) / min(p, q).
    """

    share: float
    chance: float


@dataclass(frozen=True)
class Likeness:
    """Similarity of two adapters on the modules that both change, each concatenated to one vector.

    Attributes:
        modules: number of modules; if it is 0, all other values are 0.
        norms: √Σ‖ΔW‖² of each adapter.
        cosine: ⟨ΔWₐ, ΔW_b⟩ / (‖ΔWₐ‖ · ‖ΔW_b‖), in [−1, 1]; 0 if either ΔW is 0.
        conflict: share of the entries with opposite signs, in [0, 1]; an estimate from ``SAMPLE`` × ``SAMPLE`` entries of
            every module, exact where a module has no more.
        columns: overlap of the column spaces of ΔW, the output directions that the adapters write to.
        rows: overlap of the row spaces of ΔW, the input directions that the adapters read.
    """

    modules: int
    norms: tuple[float, float]
    cosine: float
    conflict: float
    columns: Overlap
    rows: Overlap


@dataclass(frozen=True)
class Kinship:
    """Comparison of two adapters.

    Attributes:
        names: names of the two adapters; all pairs below are in this order.
        bases: base model families of the adapters.
        shared: paths that both adapters change with equal shapes, sorted.
        only: paths that only the first and only the second adapter changes, sorted.
        clashes: path → both shapes, for shapes that differ.
        reach: share of each adapter's Σ‖ΔW‖² in the shared modules, in [0, 1]; 1 for an adapter that changes nothing.
        total: similarity over all shared modules.
        blocks: block name → similarity over the shared modules of the block, in network order.
        same_file: whether both files have equal content.
    """

    names: tuple[str, str]
    bases: tuple[str, str]
    shared: tuple[str, ...]
    only: tuple[tuple[str, ...], tuple[str, ...]]
    clashes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    reach: tuple[float, float]
    total: Likeness
    blocks: Mapping[str, Likeness]
    same_file: bool

    @property
    def ratio(self) -> float | None:
        """Strength ratio ‖ΔWₐ‖ / ‖ΔW_b‖ over the shared modules; None if either is 0."""
        first, second = self.total.norms
        return first / second if first > 0 and second > 0 else None

    @property
    def equal_weights(self) -> tuple[float, float] | None:
        """Weights with sum 1 at which both are equally strong on the shared modules, wₐ‖ΔWₐ‖ = w_b‖ΔW_b‖; None if either is 0."""
        found = balanced_weights(self.total.norms)
        return (found[0], found[1]) if found else None


@dataclass(frozen=True, eq=False)
class _Side:
    """One module of one adapter.

    Holds ``up`` (out, r) and downᵀ (fan_in, r), the matrices that orthonormalise them (``gram.spans``), ‖ΔW‖², and the signs of ΔW on the
    sampled entries.
    """

    factors: Factors
    up: Tensor
    down: Tensor
    up_span: Tensor
    down_span: Tensor
    square: float
    signs: Tensor


@dataclass(frozen=True)
class _Pair:
    """One module of both adapters.

    Holds inner product, squared norms, number of entries, share of opposite signs, and (‖QₐᵀQ_b‖², p·q/n, min(p, q)) for columns and rows.
    """

    inner: float
    squares: tuple[float, float]
    entries: int
    conflict: float
    columns: tuple[float, float, int]
    rows: tuple[float, float, int]


def kinship(a: Adapter, b: Adapter, *, seed: int = 0) -> Kinship:
    """Returns the comparison of two adapters, computed as in ``kinships``."""
    return kinships([a, b], seed=seed)[0]


@torch.no_grad()
def kinships(adapters: Sequence[Adapter], *, seed: int = 0) -> tuple[Kinship, ...]:
    """Compares every pair of adapters; incompatibilities are reported in the result, not raised.

    Args:
        adapters: any number of adapters; if the families of a pair differ, block names are those of the first known family.
        seed: random seed that selects, with each module's path, the entries whose signs are compared.

    Returns:
        One kinship per pair: 01, 02, …, 12, …

    Raises:
        RecipeError: the base model family has no named blocks.
    """
    pairs: dict[tuple[int, int], dict[str, _Pair]] = {pair: {} for pair in combinations(range(len(adapters)), 2)}
    for path in sorted({path for a in adapters for path in a.modules}):
        sides = _sides(path, adapters, seed)  # one module at a time: the products of all modules would not fit in memory
        for first, second in pairs:
            if first in sides and second in sides and bare(sides[first].factors.shape) == bare(sides[second].factors.shape):
                pairs[first, second][path] = _pair(sides[first], sides[second])
    return tuple(_kinship(adapters[first], adapters[second], found) for (first, second), found in pairs.items())


def misfit(reference: Adapter, other: Adapter) -> str:
    """Returns a short reason why the other adapter cannot be merged with the reference; empty if it can.

    Two adapters are compatible if their families are equal or one is unknown, and at least one module has equal path and shape in both.
    """
    if "unknown" not in (reference.base, other.base) and reference.base != other.base:
        return f"for {other.base}"
    common = reference.modules.keys() & other.modules.keys()
    if not common:
        return "with no shared module"
    return "" if any(bare(reference.modules[path].shape) == bare(other.modules[path].shape) for path in common) else "with other shapes"


def _sides(path: str, adapters: Sequence[Adapter], seed: int) -> dict[int, _Side]:
    """Returns adapter index → its data for one module; empty if fewer than two adapters change the module."""
    present = {index: a.modules[path] for index, a in enumerate(adapters) if path in a.modules}
    return {index: _side(path, factors, seed) for index, factors in present.items()} if len(present) > 1 else {}


def _side(path: str, factors: Factors, seed: int) -> _Side:
    up, down = factors.up.double(), factors.down.double().T
    up_gram, down_gram = up.T @ up, down.T @ down
    square = factors.scale**2 * float((up_gram * down_gram).sum().clamp(min=0))
    return _Side(factors, up, down, *spans(up, down, up_gram, down_gram), square, _signs(path, factors, seed))


def _signs(path: str, factors: Factors, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(f"{seed}:{path}".encode()).digest()[:7]))
    rows = torch.randperm(factors.up.shape[0], generator=generator)[:SAMPLE]
    columns = torch.randperm(factors.down.shape[1], generator=generator)[:SAMPLE]
    return (factors.scale * (factors.up[rows].double() @ factors.down[:, columns].double())).sign()


def _pair(a: _Side, b: _Side) -> _Pair:
    up, down = a.up.T @ b.up, a.down.T @ b.down
    return _Pair(
        inner=a.factors.scale * b.factors.scale * float((up * down).sum()),
        squares=(a.square, b.square),
        entries=len(a.up) * len(a.down),
        conflict=float((a.signs * b.signs < 0).double().mean()),
        columns=_meeting(a.up_span, up, b.up_span, len(a.up)),
        rows=_meeting(a.down_span, down, b.down_span, len(a.down)),
    )


def _meeting(first: Tensor, product: Tensor, second: Tensor, n: int) -> tuple[float, float, int]:
    """Returns (‖QₐᵀQ_b‖², p·q/n, min(p, q)) for the bases Qₐ = A @ first and Q_b = B @ second in n dimensions, given AᵀB.

    For random subspaces, E‖QₐᵀQ_b‖² = tr(Qₐᵀ E[Q_bQ_bᵀ] Qₐ) = p·q/n.
    """
    p, q = first.shape[1], second.shape[1]
    return float((first.T @ product @ second).square().sum()), p * q / n, min(p, q)


def _kinship(a: Adapter, b: Adapter, pairs: Mapping[str, _Pair]) -> Kinship:
    clashes = sorted((a.modules.keys() & b.modules.keys()) - pairs.keys())
    blocks = paths_by_block(pairs, a.base if a.base != "unknown" else b.base)
    total = _likeness(pairs.values())
    return Kinship(
        names=(a.name, b.name),
        bases=(a.base, b.base),
        shared=tuple(pairs),
        only=(tuple(sorted(a.modules.keys() - b.modules.keys())), tuple(sorted(b.modules.keys() - a.modules.keys()))),
        clashes={path: (a.modules[path].shape, b.modules[path].shape) for path in clashes},
        reach=(_reach(a, pairs, total.norms[0]), _reach(b, pairs, total.norms[1])),
        total=total,
        blocks={name: _likeness(pairs[path] for path in paths) for name, paths in blocks.items()},
        same_file=bool(a.sha256) and a.sha256 == b.sha256,
    )


def _likeness(pairs: Iterable[_Pair]) -> Likeness:
    found = list(pairs)
    first, second = (math.sqrt(sum(p.squares[i] for p in found)) for i in (0, 1))
    entries = sum(p.entries for p in found)
    return Likeness(
        modules=len(found),
        norms=(first, second),
        cosine=_cosine(sum(p.inner for p in found), first, second),
        conflict=sum(p.conflict * p.entries for p in found) / entries if entries else 0.0,
        columns=_overlap([p.columns for p in found]),
        rows=_overlap([p.rows for p in found]),
    )


def _cosine(inner: float, first: float, second: float) -> float:
    return min(1.0, max(-1.0, inner / first / second)) if first > 0 and second > 0 else 0.0


def _overlap(meetings: Sequence[tuple[float, float, int]]) -> Overlap:
    dimensions = sum(least for _, _, least in meetings)
    if not dimensions:
        return Overlap(0.0, 0.0)
    return Overlap(min(1.0, sum(m[0] for m in meetings) / dimensions), sum(m[1] for m in meetings) / dimensions)


def _reach(adapter: Adapter, pairs: Mapping[str, _Pair], shared: float) -> float:
    rest = sum(factors.norm() ** 2 for path, factors in adapter.modules.items() if path not in pairs)
    return shared**2 / (shared**2 + rest) if shared > 0 or rest > 0 else 1.0
