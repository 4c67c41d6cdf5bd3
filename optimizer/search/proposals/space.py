"""The search space: the parameters that Optuna may propose, and the mapping from parameter values to recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import optuna

from optimizer.adapters import Adapter
from optimizer.merging import METHODS, BlockMap, Parameter, Recipe, block_map, common_base, default_rank, sum_of_ranks
from optimizer.merging.methods.solved import CORRECTION
from optimizer.search.config import Dtype

WEIGHT_RANGE = (0.0, 1.3)
SHARE_RANGE = (0.0, 1.0)
BLOCK_RANGE = (0.5, 1.5)
_SUMS = ("linear", "concat", "svd")
# With fewer trials per dimension a search over block weights fits noise.
_TRIALS_PER_DIMENSION = 5


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

    @property
    def weighed(self) -> tuple[str, ...]:
        """Names of the sources whose weights are proposed."""
        return self.names[1:] if self.anchored else self.names

    @property
    def weight_range(self) -> tuple[float, float]:
        """Range of every proposed weight."""
        return SHARE_RANGE if self.anchored else WEIGHT_RANGE

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
        return {**fields, **bounds, "dtype": self.dtype, "seed": self.seed, "parameters": own, **anchor}

    def summary(self) -> str:
        """Returns a one-line description of the search space for the user."""
        low, high = self.weight_range
        parts = [f"weights {low:g} to {high:g} of {', '.join(self.weighed)}"]
        if groups := {name: ", ".join(own) for name, own in zip(self.names, self.groups, strict=True) if own}:
            low, high = BLOCK_RANGE
            listed = "; ".join(f"{name}: {own}" for name, own in groups.items())
            same = len(groups) == len(self.weighed) and len(set(groups.values())) == 1
            parts.append(f"block weights {low:g} to {high:g} ({next(iter(groups.values())) if same else listed})")
        parts.append(f"methods {', '.join(self.methods)}")
        if self.parameters:
            parts.append(", ".join(parameter.name for parameter in self.parameters))
        return "searched: " + "; ".join(parts)

    def suggest(self, trial: optuna.trial.BaseTrial) -> Recipe:
        """Lets the sampler choose every value, and returns the recipe.

        Every trial gets a value for every parameter, including those that its method does not use, because a Gaussian process requires a
        space without conditional parameters.
        """
        method = trial.suggest_categorical("method", self.methods) if len(self.methods) > 1 else self.methods[0]
        values: dict[str, Any] = {"method": method}
        for name, groups in zip(self.names, self.groups, strict=True):
            if name in self.weighed:
                values[f"weight:{name}"] = trial.suggest_float(f"weight:{name}", *self.weight_range)
            for group in groups:
                values[f"block:{name}:{group}"] = trial.suggest_float(f"block:{name}:{group}", *BLOCK_RANGE)
        for parameter in self.parameters:
            if parameter.choices:
                values[parameter.name] = trial.suggest_categorical(parameter.name, parameter.choices)
            elif parameter.value_type is int:
                values[parameter.name] = trial.suggest_int(parameter.name, int(parameter.low), int(parameter.high))
            else:
                values[parameter.name] = trial.suggest_float(parameter.name, parameter.low, parameter.high)
        return self.recipe(values)

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """Returns the recipe for a set of parameter values.

        A missing block weight is 1, a missing parameter of the method has its starting value. A block weight of 1 has no effect and is
        left out, so that equal merges have equal hashes.
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
        weights = {group: round(float(values.get(f"block:{name}:{group}", 1.0)), 4) for group in groups}
        return {block: weight for group, weight in weights.items() if weight != 1.0 for block in self.blocks[group]}

    def _weights(self, values: Mapping[str, Any]) -> tuple[float, ...]:
        weights = tuple(round(float(values[f"weight:{name}"]), 4) for name in self.weighed)
        return (round(1 - sum(weights), 4), *weights) if self.anchored else weights


def space_for(
    adapters: Sequence[Adapter], *, budget: int, methods: Sequence[str], rank: int | None, dtype: Dtype, seed: int
) -> SearchSpace:
    """Returns the search space for LoRAs under a budget; the budget limits the number of block weights, grouped by ``BlockMap.groups``.

    The methods are checked before, by ``known_methods``.
    """
    blocks = block_map(common_base(adapters))
    present = [{blocks.group_of(path) for path in adapter.modules} for adapter in adapters]
    return SearchSpace(
        names=tuple(a.name for a in adapters),
        hashes=tuple(a.sha256 for a in adapters),
        methods=("linear" if rank is None else "svd", *dict.fromkeys(m for m in methods if m not in _SUMS)),
        groups=_groups(blocks, present, budget),
        blocks=blocks.groups,
        rank=rank,
        sum_of_ranks=sum_of_ranks(adapters),
        dtype=dtype,
        seed=seed,
    )


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
    """
    moving = len(names) - anchored
    groups = _groups(blocks, [{blocks.group_of(path) for path in paths}] * moving, budget)
    return SearchSpace(
        names=tuple(names),
        hashes=tuple(hashes),
        methods=("linear", *dict.fromkeys(m for m in methods if m not in _SUMS)),
        groups=((), *groups) if anchored else groups,
        blocks=blocks.groups,
        rank=None,
        sum_of_ranks=None,
        dtype=dtype,
        seed=seed,
        anchored=anchored,
    )


def _groups(blocks: BlockMap, present: Sequence[AbstractSet[str | None]], budget: int) -> tuple[tuple[str, ...], ...]:
    """Returns per source the block groups that get their own weight, among those that it changes, in network order."""
    count = len(present)
    allowed = max(0, budget // _TRIALS_PER_DIMENSION - count)
    per_source = min(len(blocks.groups), allowed // count)
    chosen = [[label for label in blocks.groups if label in groups][:per_source] for groups in present]
    return tuple(tuple(sorted(few, key=blocks.position)) for few in chosen)
