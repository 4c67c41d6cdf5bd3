"""Merging of adapters by a recipe into one adapter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.adapters.names.dialects import written_rows
from optimizer.checkpoints.model import Tick
from optimizer.errors import RecipeError
from optimizer.merging.algebra.compress import compressed
from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import Change, LowRank, inner, unstacked
from optimizer.merging.algebra.svd_retry import Computed, LinAlgError, retried
from optimizer.merging.blocks.maps import block_weight, check_block_names
from optimizer.merging.common_base import common_base
from optimizer.merging.correction import NO_TEXTS, with_correction
from optimizer.merging.methods import check_needs
from optimizer.merging.methods.weighted_sum import weighted_sum
from optimizer.merging.module_batches import Stack, stacks
from optimizer.merging.rank_allocation import Spectrum, allotted, rank_within
from optimizer.merging.recipe import Recipe
from optimizer.merging.router import Router
from optimizer.merging.router_sums import Sums

_ROUNDING = 1e-3

_Key = tuple[str | None, int]  # calibration and rank of the correction
_PLAIN: _Key = (None, 0)


@dataclass(frozen=True)
class Merged:
    """A merged adapter and its compression error.

    Attributes:
        adapter: merged adapter.
        error: norm lost by compression, relative to ‖ΔW‖ over all modules, in [0, 1]; values below 10⁻³ are rounding and reported as 0.
    """

    adapter: Adapter
    error: float


class Merger:
    """Merges fixed sources repeatedly; their factors stay stacked, in fp32, on the device.

    Args:
        adapters: sources of the merges.
        device: device that computes and holds the results.
        keep: whether to keep the stacks in memory. If False, each stack is built when needed, and a merge needs no more memory than its
            largest module.
        routers: routers that recipes may name as their calibration. The sources as the last one leaves them are kept, too.

    Raises:
        RecipeError: the sources were made for different base models.
    """

    def __init__(
        self, adapters: Sequence[Adapter], device: str | torch.device = "cpu", *, keep: bool = True, routers: Iterable[Router] = ()
    ) -> None:
        self.adapters, self.device, self.base = tuple(adapters), device, common_base(adapters)
        self._routers = {router.hash: router for router in routers}
        self._kept: dict[_Key, _Kept] | None = {_PLAIN: _Kept(stacks(adapters, device))} if keep else None

    def add_router(self, router: Router) -> None:
        """Makes a router known, which recipes may then name as their calibration."""
        self._routers[router.hash] = router

    def merge(self, recipe: Recipe, *, dtype: torch.dtype = torch.float32) -> Adapter:
        """Returns the merged adapter, as the function ``merge`` does.

        Args:
            recipe: description of the merge.
            dtype: dtype to which the factors of the result are rounded, as in a written file.
        """
        return self.measured(recipe, dtype=dtype).adapter

    @torch.no_grad()
    def measured(self, recipe: Recipe, *, dtype: torch.dtype = torch.float32, tick: Tick | None = None) -> Merged:
        """Returns the merged adapter and its compression error.

        The error costs almost nothing: the kept part of ΔW is orthogonal to the lost part, so the two energies suffice.

        Args:
            recipe: description of the merge.
            dtype: dtype to which the factors of the result are rounded, as in a written file.
            tick: called with the number of merged modules and of all; not called for plain weighted sums of kept stacks, which are instant.

        Raises:
            RecipeError: the recipe does not match the sources, its method needs an input that is not available, or every module's
                weight is 0.
        """
        if recipe.calibration is None:
            check_needs(recipe.method_record)
        router = self._router(recipe)
        # Factors of a full router may cancel each other, which multiplies rounding errors; those of a decomposition do not.
        ordered = recipe.sized or (router is not None and router.mixes)
        plain = recipe.method_record.function is weighted_sum and recipe.rank is None and not ordered
        if plain and (sums := self._sums(recipe, dtype)) and sums.allows(recipe):
            return Merged(self._adapter(self._summed(sums, self._bound(recipe))), 0.0)
        modules: dict[str, Factors] = {}
        whole, kept = 0.0, 0.0
        spectra: dict[str, Spectrum] = {}
        total = len(set().union(*(adapter.modules for adapter in self.adapters)))
        for shape, deltas in self.deltas(recipe):
            change, factors = _merged(deltas, recipe, ordered=ordered)
            whole += (energy := _energy(change))
            if recipe.sized:
                found = dict(zip(deltas.paths, unstacked(factors, shape), strict=True))
                found, held = _measured(found, inner(change, change), recipe, self.base)
                spectra |= held
                modules |= found
            else:
                kept += energy if factors is change else _energy(factors)
                modules.update(zip(deltas.paths, unstacked(factors.to(dtype), shape), strict=True))
            if tick:
                tick(len(modules), total)
        if not modules:
            raise RecipeError(
                "nothing is left to merge: every module's weight is 0",
                where="recipe: weights",
                remedy="give a source a weight other than 0",
            )
        if spectra:
            ranks = allotted(spectra, recipe)
            kept = sum(float(spectra[path].energy[:rank].sum()) for path, rank in ranks.items())
            modules = {path: _cut(modules[path], rank, dtype) for path, rank in ranks.items()}
        lost = max(0.0, 1 - kept / whole) ** 0.5 if whole else 0.0
        return Merged(self._adapter(modules), lost if lost > _ROUNDING else 0.0)

    def _adapter(self, modules: dict[str, Factors]) -> Adapter:
        return Adapter(name="-".join(a.name for a in self.adapters), modules=dict(sorted(modules.items())), base=self.base)

    def _sums(self, recipe: Recipe, dtype: torch.dtype) -> Sums | None:
        kept = self._kept_for(recipe)
        return kept.sums(dtype) if kept and kept.stacks else None

    def _summed(self, sums: Sums, bound: Recipe) -> dict[str, Factors]:
        factors = (lambda stack: self._block_factors(bound, stack).to(self.device)) if bound.blocks else None
        return sums.at(self._signed(bound).to(self.device), factors)

    def _bound(self, recipe: Recipe) -> Recipe:
        bound = recipe.bound_to(self.adapters)
        for i, names in enumerate(bound.blocks):
            check_block_names(names, where=f"recipe: blocks.{i}", base=self.base)
        return bound

    def deltas(self, recipe: Recipe) -> Iterator[tuple[tuple[int, ...], Deltas]]:
        """Yields the shape of the modules and the input of the recipe's method, stack by stack.

        Modules where every source has weight 0 are left out. If the recipe names a calibration, the deltas are what its router makes of
        the sources.

        Raises:
            RecipeError: the recipe does not match the sources, or its router was not given or was made for others.
        """
        bound = self._bound(recipe)
        for stack in self.stacks(bound):
            for deltas in self.deltas_at(bound, stack):
                yield stack.shape, deltas

    def deltas_at(self, recipe: Recipe, stack: Stack) -> Iterator[Deltas]:
        """Yields the input of the recipe's method at a stack of ``stacks(recipe)``, for a recipe that is bound to the sources."""
        router = self._router(recipe)
        return stack.deltas(self.weights(recipe, stack), router.sources if router else recipe.sources)

    def stacks(self, recipe: Recipe | None = None) -> Iterable[Stack]:
        """Returns all modules of all sources as stacks; for a recipe that names a calibration, as its router leaves the sources.

        Raises:
            RecipeError: the recipe's router was not given, or was made for other sources.
        """
        kept = self._kept_for(recipe)
        return kept.stacks if kept else self._routed(recipe)

    def _routed(self, recipe: Recipe | None) -> Iterator[Stack]:
        """Yields the stacks of the sources as the recipe's router leaves them, with the correction that it was solved with."""
        router = self._router(recipe)
        whole = with_correction(self.adapters, _correction(recipe), router.texts if router else NO_TEXTS)
        return stacks(whole, self.device, router)

    def _kept_for(self, recipe: Recipe | None) -> _Kept | None:
        if self._kept is None:
            return None
        key: _Key = (recipe.calibration, _correction(recipe)) if recipe else _PLAIN
        if key not in self._kept:
            self._kept = {_PLAIN: self._kept[_PLAIN]}  # frees the memory of the last router's stacks first
            self._kept[key] = _Kept(self._routed(recipe))
        return self._kept[key]

    def _router(self, recipe: Recipe | None) -> Router | None:
        if recipe is None or recipe.calibration is None:
            return None
        if recipe.calibration not in self._routers:
            raise RecipeError(
                f"the router {recipe.calibration} was not given",
                where="recipe: calibration",
                remedy="load it with load_router, and give it with routers=[…]",
            )
        return self._routers[recipe.calibration]

    def weights(self, recipe: Recipe, stack: Stack) -> Tensor:
        """Returns the weight of every source at every module of a stack, (N, b), fp32.

        For a corrected merge there is one row more: the correction has weight 1 where a source has another weight than 0, of those that
        change the module, or of all where none does.
        """
        weights = self._signed(recipe)[:, None].expand(-1, len(stack.paths))
        weights = weights * self._block_factors(recipe, stack) if recipe.blocks else weights
        if not _correction(recipe):
            return weights
        own = weights[[i for i in stack.members if i < len(recipe.weights)] or slice(len(recipe.weights))]
        return torch.cat([weights[:-1], (own != 0).any(dim=0, keepdim=True).to(weights)])

    def _signed(self, recipe: Recipe) -> Tensor:
        """Returns the signed weight of every source, and 1 for a correction, (N,), fp32."""
        sign = recipe.method_record.sign
        return torch.tensor([*(sign(i) * w for i, w in enumerate(recipe.weights)), *([1.0] if _correction(recipe) else [])])

    def _block_factors(self, recipe: Recipe, stack: Stack) -> Tensor:
        """Returns the block weights of every source, and ones for a correction, (N, b), fp32."""
        every = (*recipe.blocks, *([{}] if _correction(recipe) else []))
        return torch.tensor([[block_weight(path, blocks, self.base) for path in stack.paths] for blocks in every])


class _Kept:
    """Stacks that stay in memory, and the weighted sums of each dtype that were prepared from them."""

    def __init__(self, found: Iterable[Stack]) -> None:
        self.stacks, self._prepared = tuple(found), dict[torch.dtype, Sums]()

    def sums(self, dtype: torch.dtype) -> Sums:
        if dtype not in self._prepared:
            self._prepared[dtype] = Sums(self.stacks, dtype)
        return self._prepared[dtype]


def merge(
    adapters: Sequence[Adapter],
    recipe: Recipe,
    *,
    device: str | torch.device = "cpu",
    routers: Iterable[Router] = (),
    tick: Tick | None = None,
) -> Adapter:
    """Merges the sources according to a recipe.

    Every module that any source changes is merged; a source that lacks a module contributes nothing there. A module is left out if the
    product of weight and block weight is 0 for all its sources.

    Args:
        adapters: sources, in the order of the recipe's weights.
        recipe: description of the merge; if it names sources, they must be these.
        device: device that computes and holds the result.
        routers: routers, of which the recipe's calibration names one; needed only by a recipe that names a calibration.
        tick: called with the number of merged modules and of all; an exception that it raises stops the merge.

    Returns:
        The merged adapter in fp32, each module's alpha equal to its rank (scale 1), so that it is used at strength 1.0.

    Raises:
        RecipeError: the recipe does not match the sources, its router was not given, or every module's weight is 0.
    """
    return Merger(adapters, device, keep=False, routers=routers).measured(recipe, tick=tick).adapter


def _correction(recipe: Recipe | None) -> int:
    """Returns the rank of the correction that the recipe's router was solved with; 0 for a recipe without a router."""
    return int(recipe.correction) if recipe and recipe.calibration else 0


def shared_modules(adapters: Sequence[Adapter]) -> tuple[str, ...]:
    """Returns the module paths that every adapter changes, sorted; empty if there is none."""
    common = set(adapters[0].modules).intersection(*(a.modules for a in adapters[1:])) if adapters else set()
    return tuple(sorted(common))


def _merged(deltas: Deltas, recipe: Recipe, *, ordered: bool) -> Computed:
    """Returns the method's result for a batch of modules, and its compressed factors.

    If a decomposition of finite values does not converge, the modules are retried one by one on the CPU, with decompositions in double
    precision.

    Raises:
        RecipeError: a value is not finite, or a decomposition also fails in double precision; names the module.
    """
    computed = _tried(deltas, recipe, ordered) or retried(lambda module: _computed(module, recipe, ordered), deltas)
    _check_finite(computed[1], deltas.paths)
    return computed


def _tried(deltas: Deltas, recipe: Recipe, ordered: bool) -> Computed | None:
    """Returns the merged batch, or None if a decomposition does not converge; raises RecipeError for a non-finite value."""
    try:
        return _computed(deltas, recipe, ordered)
    except LinAlgError:
        for term in deltas.terms:
            _check_finite(term, deltas.paths)
    return None


def _computed(deltas: Deltas, recipe: Recipe, ordered: bool) -> Computed:
    change = recipe.method_record.function(deltas, recipe)
    return change, _compressed(change, recipe, ordered)


def _compressed(change: Change, recipe: Recipe, ordered: bool) -> LowRank:
    if recipe.rank == "full":
        return compressed(change.dense() if isinstance(change, LowRank) else change, None)
    return compressed(change, recipe.rank, ordered=ordered)


def _measured(found: dict[str, Factors], whole: Tensor, recipe: Recipe, base: str) -> tuple[dict[str, Factors], dict[str, Spectrum]]:
    """Returns each module truncated to ``rank_energy``, and its spectrum; components are ordered by descending singular value."""
    spectra = {}
    for (path, factors), total in zip(found.items(), whole.tolist(), strict=True):
        energy = (factors.up.double().square().sum(dim=0) * factors.down.double().square().sum(dim=1)).cpu()
        if recipe.rank_energy is not None:
            found[path] = _cut(factors, rank_within(energy, recipe.rank_energy, total), factors.up.dtype)
        spectra[path] = Spectrum(energy[: found[path].rank], written_rows(path, factors.shape, base) + factors.down.shape[1])
    return found, spectra


def _energy(change: Change) -> float:
    """Returns ‖ΔW‖² summed over all modules."""
    if isinstance(change, LowRank):
        return float(inner(change, change).sum())
    return float(torch.linalg.vector_norm(change, dim=(1, 2)).double().square().sum())


def _cut(factors: Factors, rank: int, dtype: torch.dtype) -> Factors:
    """Returns the first ``rank`` components, rounded to a dtype."""
    return Factors(factors.up[:, :rank].to(dtype).contiguous(), factors.down[:rank].to(dtype).contiguous(), float(rank), factors.shape)


def _check_finite(factors: LowRank, paths: Sequence[str]) -> None:
    if math.isfinite(float(factors.up.sum() + factors.down.sum())):
        return
    for path, up, down in zip(paths, factors.up, factors.down, strict=True):
        if not bool(torch.isfinite(up).all() & torch.isfinite(down).all()):
            raise RecipeError(
                "the merged change is not finite", where=path, remedy="look for NaN, infinite or huge values in this module of the sources"
            )
