"""The search space: the parameters that Optuna may propose, and the mapping from parameter values to recipes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from optimizer.adapters import Adapter
from optimizer.errors import UsageError
from optimizer.merging import METHODS, BlockMap, Parameter, Recipe, block_map, common_base, default_rank, sum_of_ranks
from optimizer.merging.methods.solved import CORRECTION
from optimizer.search.config import Dtype
from optimizer.search.config.search import AUTO, BLOCKS
from optimizer.search.config.weights import FREEZE
from optimizer.search.proposals.block_groups import block_groups
from optimizer.search.proposals.bounds import Bounds, on_grid
from optimizer.search.proposals.priors import Prior

# Below the lower end a source is lost, which no other gain makes up for. Earlier versions searched from 0.
WEIGHT_RANGE, EARLIER_RANGE = (0.1, 1.3), (0.0, 1.3)
SHARE_RANGE = (0.0, 1.0)
BLOCK_RANGE = (0.5, 1.5)
_SUMS = ("linear", "concat", "svd")
NOTHING: Mapping[str, Any] = MappingProxyType({})
"""No values of a trial."""


@dataclass(frozen=True)
class SearchSpace:
    """Parameter ranges and choices of a search.

    Attributes:
        names: names of the sources, in order.
        hashes: SHA-256 digests of the sources, in order.
        methods: merge methods to choose from; the weighted sum (``linear``, or ``svd`` at a rank) is always the first.
        groups: per source, the labels of the block groups that have their own weight; may be empty.
        blocks: label of a group → the blocks, or families of blocks, that receive its weight in a recipe.
        rank: output rank of every candidate, or None for the default of ``default_rank``.
        sum_of_ranks: largest sum of the sources' ranks in a module; None for full models.
        dtype: dtype of the exported file.
        seed: seed of the recipes' random masks.
        anchored: whether the first source is the base of the others' changes; its weight is 1 minus the sum of their weights.
        bounds: ranges and fixed weights that the user gives, and the grid of weights and block weights.
        priors: weights to try first, beside the default recipes.
        weights: range of the weights of sources that the user gives none.
    """

    names: tuple[str, ...]
    hashes: tuple[str, ...]
    methods: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    blocks: Mapping[str, tuple[str, ...]]
    rank: int | None
    sum_of_ranks: int | None
    dtype: Dtype
    seed: int
    anchored: bool = False
    bounds: Bounds = field(default_factory=Bounds)
    priors: tuple[Prior, ...] = ()
    weights: tuple[float, float] = field(default_factory=lambda: WEIGHT_RANGE)

    @property
    def weighed(self) -> tuple[str, ...]:
        """Names of the sources whose weights are proposed."""
        return tuple(name for name in self.names[self.anchored :] if name not in self.bounds.frozen)

    @property
    def weight_range(self) -> tuple[float, float]:
        """Range of the weights for which the user gives none."""
        return SHARE_RANGE if self.anchored else self.weights

    def range_of(self, name: str) -> tuple[float, float]:
        """Returns the range of the proposed weights of a source."""
        return self.bounds.ranges.get(name, self.weight_range)

    @property
    def dimensions(self) -> int:
        """Number of proposed values."""
        return len(self.weighed) + sum(map(len, self.groups)) + (len(self.methods) > 1) + len(self.parameters)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Method parameters besides weights, each once: methods that share a parameter share its proposed value."""
        found = {p.name: p for method in self.methods for p in METHODS[method].parameters if p.searched}
        return tuple(found.values())

    @property
    def correction(self) -> int:
        """Greatest rank of a correction that a merge of the search has beside its sources."""
        return max(int(METHODS[method].starting_values().get(CORRECTION.name, 0)) for method in self.methods)

    def described(self) -> dict[str, Any]:
        """Returns all settings that determine the proposals and their recipes, JSON-serializable."""
        fields = {"names": self.names, "hashes": self.hashes, "methods": self.methods, "groups": self.groups}
        bounds = {"weights": self.weight_range, "blocks": BLOCK_RANGE, "rank": self.rank, "sum_of_ranks": self.sum_of_ranks}
        own = {p.name: [p.start, p.low, p.high, p.choices] for p in self.parameters}
        anchor = {"anchored": True} if self.anchored else {}
        given = {**self.bounds.described(), **({"priors": [prior.label for prior in self.priors]} if self.priors else {})}
        return {**fields, **bounds, "dtype": self.dtype, "seed": self.seed, "parameters": own, **anchor, **given}

    def earlier(self) -> SearchSpace:
        """Returns the space that earlier versions searched with the same settings: weights from 0, no grid, and fewer initial trials."""
        return replace(self, bounds=replace(self.bounds, grid=0.0), priors=(), weights=EARLIER_RANGE)

    def summary(self) -> str:
        """Returns a one-line description of the search space for the user."""
        parts = self._told_weights()
        if groups := {name: ", ".join(own) for name, own in zip(self.names, self.groups, strict=True) if own}:
            low, high = BLOCK_RANGE
            listed = "; ".join(f"{name}: {own}" for name, own in groups.items())
            same = len(groups) == len(self.names[self.anchored :]) and len(set(groups.values())) == 1
            parts.append(f"block weights {low:g} to {high:g} ({next(iter(groups.values())) if same else listed})")
        parts += [f"steps of {self.bounds.grid:g}"] if self.bounds.grid and (self.weighed or groups) else []
        parts.append(f"methods {', '.join(self.methods)}")
        if self.parameters:
            parts.append(", ".join(parameter.name for parameter in self.parameters))
        return "searched: " + "; ".join(parts)

    def suggest(self, trial: optuna.trial.BaseTrial, given: Mapping[str, Any] = NOTHING) -> Recipe:
        """Lets the sampler choose every value, and returns the recipe.

        Every trial gets a value for every parameter, including those that its method does not use, because a Gaussian process requires a
        space without conditional parameters.

        Args:
            trial: Optuna's trial.
            given: values that the trial has been given, such as those of a baseline. Weights among them may be outside the ranges, off
                the grid, or of sources with fixed weights.
        """
        return self.recipe({name: _suggested(trial, name, each) for name, each in self.distributions(given).items()})

    def distributions(self, given: Mapping[str, Any] = NOTHING) -> dict[str, BaseDistribution]:
        """Returns the distribution of every parameter by name, in the order in which they are proposed.

        Args:
            given: values of a trial, as in ``suggest``; distributions of weights are such that they contain them.
        """
        found: dict[str, BaseDistribution] = {"method": CategoricalDistribution(self.methods)} if len(self.methods) > 1 else {}
        for name, groups in zip(self.names, self.groups, strict=True):
            weight = weight_key(name)
            if name in self.weighed:
                found[weight] = self.bounds.distribution(*self.range_of(name), given.get(weight))
            elif weight in given and name in self.bounds.frozen:
                found[weight] = FloatDistribution(given[weight], given[weight])
            for group in groups:
                found[block_key(name, group)] = self.bounds.distribution(*BLOCK_RANGE, given.get(block_key(name, group)))
        return found | {parameter.name: _distribution(parameter) for parameter in self.parameters}

    def covers(self, values: Mapping[str, Any]) -> bool:
        """Returns whether weights and block weights are in their ranges, on the grid or not, and fixed weights as they are fixed."""
        ranges = {weight_key(name): self.range_of(name) for name in self.weighed}
        ranges |= {weight_key(name): (weight, weight) for name, weight in self.bounds.frozen.items()}
        ranges |= {block_key(name, group): BLOCK_RANGE for name, own in zip(self.names, self.groups, strict=True) for group in own}
        return all(low <= values[key] <= high for key, (low, high) in ranges.items() if key in values)

    def fixes(self, values: Mapping[str, Any]) -> bool:
        """Returns whether fixed weights are as they are fixed, so that a sampler can learn from the trial with these values."""
        return all(values.get(weight_key(name), weight) == weight for name, weight in self.bounds.frozen.items())

    def seen(self, trial: FrozenTrial) -> FrozenTrial | None:
        """Returns a trial of the study as a sampler sees it; None if it must not, because a fixed weight has another value there.

        Samplers model only parameters that have one distribution in all trials; those of baselines may have others, see ``suggest``.
        """
        own = self.distributions()
        if trial.distributions == own or not own.keys() <= trial.params.keys():
            return trial
        if not self.fixes(trial.params):
            return None
        found = copy.copy(trial)
        found.distributions, found.params = own, {name: trial.params[name] for name in own}
        return found

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """Returns the recipe for a set of parameter values.

        A missing weight is that which is fixed, a missing block weight 1, and a missing parameter of the method has its starting value. A
        block weight of 1 has no effect and is left out, so that equal merges have equal hashes.
        """
        method = str(values.get("method", self.methods[0]))
        blocks = tuple(self._block_weights(name, groups, values) for name, groups in zip(self.names, self.groups, strict=True))
        chosen = {name: values.get(name, start) for name, start in METHODS[method].starting_values().items()}
        own: dict[str, Any] = {name: round(value, 4) if isinstance(value, float) else value for name, value in chosen.items()}
        return Recipe(
            method=method,
            weights=self._weights(values),
            sources=self.hashes,
            blocks=blocks,
            rank=self.rank or default_rank(method, self.sum_of_ranks),
            dtype=self.dtype,
            seed=self.seed if METHODS[method].seeded else 0,
            **own,
        )

    def _block_weights(self, name: str, groups: Sequence[str], values: Mapping[str, Any]) -> dict[str, float]:
        weights = {group: round(float(values.get(block_key(name, group), 1.0)), 4) for group in groups}
        return {block: weight for group, weight in weights.items() if weight != 1.0 for block in self.blocks[group]}

    def _weights(self, values: Mapping[str, Any]) -> tuple[float, ...]:
        given = {weight_key(name): weight for name, weight in self.bounds.frozen.items()} | dict(values)
        weights = tuple(round(float(given[weight_key(name)]), 4) for name in self.names[self.anchored :])
        return (round(1 - sum(weights), 4), *weights) if self.anchored else weights

    def _told_weights(self) -> list[str]:
        """Returns the ranges of the weights, and the fixed weights, as parts of a sentence."""
        sources: dict[tuple[float, float], list[str]] = {}
        for name in self.weighed:
            sources.setdefault(on_grid(*self.range_of(name), self.bounds.grid), []).append(name)
        ranges = [f"{low:g} to {high:g} of {', '.join(names)}" for (low, high), names in sources.items()]
        fixed = [f"{name} fixed at {weight:g}" for name, weight in self.bounds.frozen.items()]
        return [*([f"weights {' and '.join(ranges)}"] if ranges else []), *fixed]


def weight_key(name: str) -> str:
    """Returns the name of the parameter that is a source's weight."""
    return f"weight:{name}"


def block_key(name: str, group: str) -> str:
    """Returns the name of the parameter that is a source's weight in a group of blocks."""
    return f"block:{name}:{group}"


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.value_type is int:
        return IntDistribution(int(parameter.low), int(parameter.high))
    return FloatDistribution(parameter.low, parameter.high)


def _suggested(trial: optuna.trial.BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    """Returns the value of a parameter that a trial has, or gets from its sampler."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step)


def space_for(
    adapters: Sequence[Adapter],
    *,
    budget: int,
    methods: Sequence[str],
    rank: int | None,
    dtype: Dtype,
    seed: int,
    bounds: Bounds | None = None,
    blocks: Sequence[str] = (AUTO,),
    priors: tuple[Prior, ...] = (),
) -> SearchSpace:
    """Returns the search space for LoRAs under a budget.

    Args:
        adapters: adapters of the sources.
        budget: number of trials beyond the baselines.
        methods: merge methods to choose from besides the weighted sum, checked before by ``known_methods``.
        rank: output rank; None for that of ``default_rank``.
        dtype: dtype of the exported file.
        seed: seed of random masks.
        bounds: bounds of the weights; None for the default ranges without a grid.
        blocks: groups of blocks, as in ``block_groups``.
        priors: weights to try first.

    Raises:
        UsageError: a group of blocks cannot be searched, or nothing is left to search.
    """
    found, bounds = block_map(common_base(adapters)), bounds or Bounds()
    present = [{found.group_of(path) for path in adapter.modules} for adapter in adapters]
    names = tuple(a.name for a in adapters)
    space = SearchSpace(
        names=names,
        hashes=tuple(a.sha256 for a in adapters),
        methods=("linear" if rank is None else "svd", *dict.fromkeys(m for m in methods if m not in _SUMS)),
        groups=block_groups(found, present, budget, blocks, [name in bounds.frozen for name in names]),
        blocks=found.groups,
        rank=rank,
        sum_of_ranks=sum_of_ranks(adapters),
        dtype=dtype,
        seed=seed,
        bounds=bounds,
        priors=priors,
    )
    if not space.dimensions:
        remedy = f"leave one out, or search over methods (--methods) or block weights ({BLOCKS})"
        raise UsageError("the weights of all sources are fixed, and nothing else is searched", where=FREEZE, remedy=remedy)
    return space


def space_of_models(
    names: Sequence[str],
    hashes: Sequence[str],
    blocks: BlockMap,
    paths: Iterable[str],
    *,
    budget: int,
    methods: Sequence[str],
    dtype: Dtype,
    seed: int,
    anchored: bool,
    groups: Sequence[str] = (AUTO,),
) -> SearchSpace:
    """Returns the search space for full models under a budget.

    Args:
        names: names of the models.
        hashes: SHA-256 digests of the models.
        blocks: block map of their family.
        paths: canonical paths of their tensors.
        budget: number of trials beyond the baselines.
        methods: merge methods to choose from besides the weighted sum, checked before.
        dtype: dtype of the merged model.
        seed: seed of random masks.
        anchored: whether the first model is the base of the others' changes.
        groups: groups of blocks, as in ``block_groups``.

    Raises:
        UsageError: a group of blocks cannot be searched.
    """
    moving = len(names) - anchored
    found = block_groups(blocks, [{blocks.group_of(path) for path in paths}] * moving, budget, groups)
    return SearchSpace(
        names=tuple(names),
        hashes=tuple(hashes),
        methods=("linear", *dict.fromkeys(m for m in methods if m not in _SUMS)),
        groups=((), *found) if anchored else found,
        blocks=blocks.groups,
        rank=None,
        sum_of_ranks=None,
        dtype=dtype,
        seed=seed,
        anchored=anchored,
    )
