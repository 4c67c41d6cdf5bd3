"""Router: the small matrix R between the concatenated factors of all sources in a module, ΔW = up_cat · R · down_cat.

Every merge that is linear in ΔWᵢ has this form: R = I is the stack, a projector on one source's block is that source alone, R = 0 is the
base, and a diagonal R is a weighted sum with block weights. Solved merges (SSR-Merge, arXiv 2606.10617) fill the whole matrix.

R refers to the factors as the source's file holds them, with the scale in ``down``: ΔWᵢ = upᵢ · (alphaᵢ/rankᵢ · downᵢ). Another pair of
factors of the same ΔWᵢ would need another R.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.files.container import serialise
from optimizer.errors import RecipeError
from optimizer.merging.algebra.lowrank import LowRank
from optimizer.merging.blocks.maps import block_weight, check_block_names
from optimizer.merging.common_base import common_base
from optimizer.merging.digest import digest

Side = Literal["output", "input"]

FORMAT_VERSION = "1"
_REMEDY = "solve the router again for these sources"


@dataclass(frozen=True, eq=False)
class Router:
    """Routers of all modules of fixed sources; the values of a router never change.

    Attributes:
        sources: SHA-256 of each source, in order.
        ranks: canonical module path → rank of each source there, in order; 0 where a source lacks the module.
        matrices: canonical module path → R, (Σr, Σr), fp32 on the CPU; a diagonal R is stored as its diagonal, (Σr,).
            Row i belongs to the i-th column of ``up_cat``, column j to the j-th row of ``down_cat``.
        texts: canonical module path → numbers of rows and columns of its weight, for modules of text encoders that no source changes, but
            the correction does; what the correction is there follows from them.

    Raises:
        RecipeError: a router has another shape or a value that is not finite; names the module.

    Example:
        >>> from optimizer.adapters import load_adapter
        >>> from optimizer.merging import Recipe, merge
        >>> from studies.demo.world import demo_sources
        >>> pair = [load_adapter(demo_sources()[name].path) for name in ("neon", "octopus")]
        >>> router = Router.identity(pair).interpolated(Router.alone(pair, 0), 0.5)
        >>> recipe = Recipe(method="routed", weights=(1, 1), calibration=router.hash)
        >>> merged = merge(pair, recipe, routers=[router])
        >>> all(merged.modules[path].rank == sum(ranks) for path, ranks in router.ranks.items())
        True
    """

    sources: tuple[str, ...]
    ranks: Mapping[str, tuple[int, ...]]
    matrices: Mapping[str, Tensor]
    texts: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in sorted({*self.ranks} ^ {*self.matrices}):
            missing = "matrix" if path in self.ranks else "ranks"
            raise RecipeError(f"the router has no {missing} of this module", where=path, remedy=_REMEDY)
        own = {path: self.matrices[path].detach().to("cpu", torch.float32) + 0.0 for path in sorted(self.matrices)}  # -0.0 + 0.0 is 0.0
        for path, matrix in own.items():
            self._check(path, matrix)
        if unknown := sorted({*self.texts} - {*own}):
            raise RecipeError("the router has no matrix of this module", where=unknown[0], remedy=_REMEDY)
        object.__setattr__(self, "texts", {path: tuple(self.texts[path]) for path in sorted(self.texts)})
        object.__setattr__(self, "ranks", {path: tuple(self.ranks[path]) for path in own})
        object.__setattr__(self, "matrices", {path: _shortest(matrix) for path, matrix in own.items()})

    def _check(self, path: str, matrix: Tensor) -> None:
        ranks, total = self.ranks[path], sum(self.ranks[path])
        if len(ranks) != len(self.sources):
            raise RecipeError(f"the router has {len(ranks)} ranks for {len(self.sources)} sources", where=path, remedy=_REMEDY)
        if tuple(matrix.shape) not in ((total, total), (total,)):
            listed = " + ".join(map(str, ranks))
            problem = f"the router has the shape {tuple(matrix.shape)}; sources of ranks {listed} need {(total, total)} or {(total,)}"
            raise RecipeError(problem, where=path, remedy=_REMEDY)
        if not bool(torch.isfinite(matrix).all()):
            raise RecipeError("the router has values that are not finite", where=path, remedy="solve it again, with more regularisation")

    @classmethod
    def identity(cls, adapters: Sequence[Adapter]) -> Router:
        """Returns R = I, the stack: all sources at weight 1."""
        paths = sorted({path for adapter in adapters for path in adapter.modules})
        ranks = {path: _ranks_at(adapters, path) for path in paths}
        ones = {path: torch.ones(sum(own)) for path, own in ranks.items()}
        return cls(tuple(digest(adapter) for adapter in adapters), ranks, ones)

    @classmethod
    def diagonal(cls, adapters: Sequence[Adapter], weights: Sequence[float], blocks: Sequence[Mapping[str, float]] = ()) -> Router:
        """Returns the router of a weighted sum.

        Args:
            adapters: sources.
            weights: weight of each source.
            blocks: block weights of each source, as in ``Recipe``; empty for none.

        Raises:
            RecipeError: the numbers of sources, weights and block weights differ, or a block name is unknown.
        """
        return cls.identity(adapters).scaled(weights, blocks, base=common_base(adapters))

    @classmethod
    def alone(cls, adapters: Sequence[Adapter], source: int) -> Router:
        """Returns R = P, the projector on one source's block: that source alone, at weight 1."""
        return cls.diagonal(adapters, [float(i == source) for i in range(len(adapters))])

    @classmethod
    def zero(cls, adapters: Sequence[Adapter]) -> Router:
        """Returns R = 0, the base model unchanged."""
        return cls.diagonal(adapters, [0.0] * len(adapters))

    @property
    def mixes(self) -> bool:
        """Whether a module's matrix is not diagonal, so that what one source reads is written by another."""
        return any(matrix.ndim == 2 for matrix in self.matrices.values())

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the router's file, 64 hex digits; equal routers of equal sources have equal hashes on every machine."""
        return hashlib.sha256(self.serialised()).hexdigest()

    def serialised(self) -> bytes:
        """Returns the bytes of the router's file, in the safetensors format."""
        told = {"sources": self.sources, "ranks": self.ranks} | ({"texts": self.texts} if self.texts else {})
        return serialise(self.matrices, {"router_format": FORMAT_VERSION, "router": json.dumps(told, sort_keys=True)})

    def scaled(
        self, weights: Sequence[float], blocks: Sequence[Mapping[str, float]] = (), *, base: str = "unknown", side: Side = "output"
    ) -> Router:
        """Returns the router with each source's part multiplied by its weight and block weight, diag(w) · R or R · diag(w).

        Args:
            weights: weight of each source.
            blocks: block weights of each source, as in ``Recipe``; empty for none.
            base: base model family that the block names belong to.
            side: ``output`` scales the rows of R, what a source writes by its ``up``; ``input`` the columns, what it reads by its ``down``.

        Raises:
            RecipeError: the number of weights or block weights differs from that of the sources, or a block name is unknown.
        """
        for name, given in (("weights", len(weights)), ("blocks", len(blocks) or len(self.sources))):
            if given != len(self.sources):
                raise RecipeError(f"{given} given for {len(self.sources)} sources", where=f"router: {name}", remedy="give one per source")
        for i, names in enumerate(blocks):
            check_block_names(names, where=f"router: blocks.{i}", base=base)
        plain, matrices = torch.tensor([float(w) for w in weights]), {}
        for path, matrix in self.matrices.items():
            own = plain * torch.tensor([block_weight(path, names, base) for names in blocks]) if blocks else plain
            row = torch.repeat_interleave(own, torch.tensor(self.ranks[path]))
            matrices[path] = matrix * (row[:, None] if matrix.ndim == 2 and side == "output" else row)
        return replace(self, matrices=matrices)

    def interpolated(self, other: Router, share: float) -> Router:
        """Returns (1 − share) · R + share · R′; share may lie outside of [0, 1].

        Raises:
            RecipeError: the routers were made for different sources.
        """
        if (self.sources, self.ranks) != (other.sources, other.ranks):
            raise RecipeError("the routers were made for different sources", where="router", remedy="interpolate routers of equal sources")
        matrices = {}
        for path, ends in ((path, (matrix, other.matrices[path])) for path, matrix in self.matrices.items()):
            one, two = ends if ends[0].ndim == ends[1].ndim else map(_full, ends)
            matrices[path] = (1 - share) * one + share * two
        return replace(self, matrices=matrices)

    def apply(self, paths: Sequence[str], stacked: LowRank) -> LowRank:
        """Returns ΔW = up_cat · R · down_cat of ``b`` modules, exactly, as factors of rank Σr: up_cat and R · down_cat.

        ``compressed`` reduces them to any rank; no dense ΔW is formed.

        Args:
            paths: canonical module paths, b entries, of equal ranks.
            stacked: concatenated factors of all sources, up_cat (b, out, Σr) and down_cat (b, Σr, fan_in), with the scale in ``down``.
        """
        return LowRank(stacked.up, self.routed(paths, stacked.down))

    def routed(self, paths: Sequence[str], down: Tensor) -> Tensor:
        """Returns R · down_cat of ``b`` modules, (b, Σr, fan_in), fp32, for down_cat of that shape, on its device."""
        own = [self.matrices[path] for path in paths]
        if all(matrix.ndim == 1 for matrix in own):
            return torch.stack(own).to(down.device)[..., None] * down
        return torch.stack([_full(matrix) for matrix in own]).to(down.device) @ down

    def check(self, adapters: Sequence[Adapter]) -> None:
        """Raises RecipeError if the router was made for other sources, another order of them, or other ranks."""
        found = tuple(digest(adapter) for adapter in adapters)
        if found != self.sources:
            problem = f"the router was made for the sources {', '.join(self.sources)}; these are {', '.join(found)}"
            raise RecipeError(problem, where="recipe: calibration", remedy="give the sources that it was solved for, in the same order")
        for path in sorted({path for adapter in adapters for path in adapter.modules} | {*self.ranks}):
            if self.ranks.get(path) != (ranks := _ranks_at(adapters, path)):
                told = self.ranks.get(path, "no ranks")
                raise RecipeError(f"the router was made for {told}; the sources have ranks {ranks}", where=path, remedy=_REMEDY)


def _ranks_at(adapters: Sequence[Adapter], path: str) -> tuple[int, ...]:
    """Returns the rank of each adapter in a module, 0 where it lacks the module."""
    return tuple(adapter.modules[path].rank if path in adapter.modules else 0 for adapter in adapters)


def _shortest(matrix: Tensor) -> Tensor:
    """Returns the diagonal of a diagonal matrix, and any other matrix as it is, so that equal routers have equal files."""
    diagonal = matrix.diagonal() if matrix.ndim == 2 else matrix
    return diagonal.clone() if matrix.ndim == 2 and torch.equal(matrix, torch.diag(diagonal)) else matrix.contiguous()


def _full(matrix: Tensor) -> Tensor:
    """Returns a router as a matrix, (Σr, Σr), also where it is stored as its diagonal."""
    return torch.diag(matrix) if matrix.ndim == 1 else matrix
