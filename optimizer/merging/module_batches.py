"""Batches the sources' modules by shape and rank (a ``Stack``), so that every step of a merge runs on many modules at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.adapters.shapes import bare
from optimizer.errors import RecipeError
from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank
from optimizer.merging.router import Router

# Most ΔW entries per stack. On a CPU (small caches) the limit is _FEW or the largest module, whichever is greater; on a GPU it is _MANY.
_FEW, _MANY = 2**20, 2**26
_PROBED = 64


@dataclass(frozen=True, eq=False)
class Stack:
    """Modules of one shape that the same sources change at the same ranks.

    Attributes:
        paths: canonical module paths, b entries.
        shape: shape of the base weights.
        members: indices of the sources that change these modules.
        terms: low-rank factors of ΔWᵢ for each member, at reference strength.
    """

    paths: tuple[str, ...]
    shape: tuple[int, ...]
    members: tuple[int, ...]
    terms: tuple[LowRank, ...]

    def deltas(self, weights: Tensor, sources: Sequence[str]) -> Iterator[Deltas]:
        """Yields the inputs of a merge method, one ``Deltas`` for each set of sources with nonzero weight.

        Modules where every source has weight 0 are left out.

        Args:
            weights: weight of every source at each module, (N, b), fp32, on the CPU; 0 where a source takes no part.
            sources: SHA-256 of every source.
        """
        own = weights if len(self.members) == len(weights) else weights[list(self.members)]
        if bool(own.all()):
            yield self._deltas(own, weights, sources)
            return
        live = own != 0
        for pattern in torch.unique(live, dim=1).T:
            where = (live == pattern[:, None]).all(dim=0).nonzero().flatten()
            if bool(pattern.any()):
                kept = pattern.nonzero().flatten().tolist()
                yield self._part(where, kept)._deltas(own[kept][:, where], weights[:, where], sources)

    def _part(self, where: Tensor, kept: list[int]) -> Stack:
        """Returns the stack restricted to some modules and some members."""
        near = where.to(self.terms[0].up.device)
        return replace(
            self,
            paths=tuple(self.paths[i] for i in where.tolist()),
            members=tuple(self.members[i] for i in kept),
            terms=tuple(LowRank(self.terms[i].up[near], self.terms[i].down[near]) for i in kept),
        )

    def _deltas(self, weights: Tensor, every: Tensor, sources: Sequence[str]) -> Deltas:
        device = self.terms[0].up.device
        return Deltas(self.paths, self.terms, weights.to(device), tuple(sources[i] for i in self.members), every.to(device))


def stacks(adapters: Sequence[Adapter], device: str | torch.device = "cpu", router: Router | None = None) -> Iterator[Stack]:
    """Yields all modules of all adapters as stacks, in fp32 on a device; one stack is built at a time.

    An adapter whose change of a module is 0 counts as one that lacks the module, where another one changes it. With a router the terms
    are what it makes of the sources: upᵢ · (R · down_cat)ᵢ, which add up to up_cat · R · down_cat; it may read from sources that change
    nothing themselves.

    Raises:
        RecipeError: adapters disagree on the shape of a weight, or the router was made for others.
    """
    if router:
        router.check(adapters)
    groups: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for path in sorted({path for a in adapters for path in a.modules}):
        changing = _members(adapters, path, router)
        ranks = tuple(a.modules[path].rank if i in changing else 0 for i, a in enumerate(adapters))
        groups.setdefault((_shape(adapters, path), ranks), []).append(path)
    largest = max((math.prod(shape) for shape, _ in groups), default=0)
    limit = _MANY if torch.device(device).type == "cuda" else max(_FEW, largest)
    for (shape, _), paths in groups.items():
        step = max(1, limit // math.prod(shape))
        for start in range(0, len(paths), step):
            yield stack_of(adapters, paths[start : start + step], device, router)


def stack_of(adapters: Sequence[Adapter], paths: Sequence[str], device: str | torch.device = "cpu", router: Router | None = None) -> Stack:
    """Returns some modules, which the same adapters change at the same ranks and in one shape, as a stack like those of ``stacks``."""
    members = _members(adapters, paths[0], router)
    terms = [_stacked([adapters[i].modules[path] for path in paths], device) for i in members]
    routed = _routed(terms, paths, router) if router else terms
    return Stack(tuple(paths), _shape(adapters, paths[0]), members, tuple(map(_balanced, routed)))


def _members(adapters: Sequence[Adapter], path: str, router: Router | None) -> tuple[int, ...]:
    """Returns the indices of the adapters that take part in a module: those that change it, or all that have it if none does."""
    have = tuple(i for i, adapter in enumerate(adapters) if path in adapter.modules)
    return have if router else tuple(i for i in have if _changes(adapters[i].modules[path])) or have


def _changes(factors: Factors) -> bool:
    """Returns whether a change is not 0."""
    return factors.scale != 0 and _any(factors.up) and _any(factors.down)


def _any(tensor: Tensor) -> bool:
    """Returns whether a value is not 0; the first ones nearly always tell."""
    flat = tensor.detach().flatten()
    return bool(flat[:_PROBED].any()) or bool(flat.any())


def _routed(terms: Sequence[LowRank], paths: Sequence[str], router: Router) -> list[LowRank]:
    whole = router.routed(paths, torch.cat([term.down for term in terms], dim=1))
    downs = torch.split(whole, [term.rank for term in terms], dim=1)
    return [LowRank(term.up, down) for term, down in zip(terms, downs, strict=True)]


def _stacked(factors: Sequence[Factors], device: str | torch.device) -> LowRank:
    """Returns the stacked factors in fp32, with the scale in ``down``."""
    up = torch.stack([f.up.detach() for f in factors]).to(device, torch.float32)
    down = torch.stack([f.down.detach() for f in factors]).to(device, torch.float32)
    return LowRank(up, down * torch.tensor([f.scale for f in factors], dtype=torch.float32, device=up.device)[:, None, None])


def _balanced(term: LowRank) -> LowRank:
    """Returns the factors with each column of ``up`` about as large as its row of ``down``.

    The columns are scaled by powers of two, so the product is unchanged bit for bit. This keeps both factors in the range where half
    precision has its full number of digits.
    """
    up, down = term.up, term.down
    ratio = torch.linalg.vector_norm(down, dim=2) / torch.linalg.vector_norm(up, dim=1)
    ratio = torch.where(torch.isfinite(ratio) & (ratio > 0), ratio, torch.ones_like(ratio))
    power = torch.exp2(torch.round(torch.log2(ratio) / 2))
    return LowRank(up * power[:, None, :], down / power[:, :, None])


def _shape(adapters: Sequence[Adapter], path: str) -> tuple[int, ...]:
    """Returns the shape of the weight that the sources change; a 1 × 1 convolution where at least one source declares one."""
    shapes = [(a.name, tuple(a.modules[path].shape)) for a in adapters if path in a.modules]
    if len({bare(shape) for _, shape in shapes}) > 1:
        listed = ", ".join(f"{name}: {shape}" for name, shape in shapes)
        raise RecipeError(
            f"the sources change weights of different shapes ({listed})", where=path, remedy="merge sources of one base model"
        )
    return max((shape for _, shape in shapes), key=len)
