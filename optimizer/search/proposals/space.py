"""The search space: what Optuna may propose, and the recipe that a proposal means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import optuna

from optimizer.adapters import Adapter
from optimizer.errors import UsageError
from optimizer.merging import METHODS, Parameter, Recipe, block_of
from optimizer.merging.blocks.maps import family_of
from optimizer.search.config import Dtype

WEIGHT_RANGE = (0.0, 1.3)
SHARE_RANGE = (0.0, 1.0)
BLOCK_RANGE = (0.5, 1.5)
_FAMILIES = ("TE", "IN", "MID", "OUT")
_BY_EFFECT = ("OUT", "IN", "TE", "MID")
_SUMS = ("linear", "concat", "svd")
# Fewer trials than this per dimension, and a search over block weights finds noise, not blocks.
_TRIALS_PER_DIMENSION = 5


@dataclass(frozen=True)
class SearchSpace:
    """Ranges and choices.

    Attributes:
        names: the sources' names, in order.
        hashes: the sources' SHA-256, in order.
        methods: merge methods to choose from; the weighted sum (``linear``, or ``svd`` at a rank) is always the first.
        groups: per source the block families that get a weight of their own; may be empty.
        rank: output rank of every candidate, or None: exact for the weighted sum, ``sum_of_ranks`` for methods on entries.
        sum_of_ranks: the largest sum of the sources' ranks in a module; None for full models.
        dtype: dtype of the exported file.
        seed: seed of the recipes' random masks.
        anchored: the first source is what the others change, and has what their weights leave of 1.
    """

    names: tuple[str, ...]
    hashes: tuple[str, ...]
    methods: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    rank: int | None
    sum_of_ranks: int | None
    dtype: Dtype
    seed: int
    anchored: bool = False

    @property
    def weighed(self) -> tuple[str, ...]:
        """The sources whose weights are proposed."""
        return self.names[1:] if self.anchored else self.names

    @property
    def weight_range(self) -> tuple[float, float]:
        """Of every weight that is proposed."""
        return SHARE_RANGE if self.anchored else WEIGHT_RANGE

    @property
    def dimensions(self) -> int:
        """Number of values in a proposal."""
        return len(self.weighed) + sum(map(len, self.groups)) + (len(self.methods) > 1) + len(self.parameters)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What the methods read besides weights, each once: methods that share a parameter share what is learnt of it."""
        found = {p.name: p for method in self.methods for p in METHODS[method].parameters if p.searched}
        return tuple(found.values())

    def described(self) -> dict[str, Any]:
        """Everything that decides what is proposed and which recipe a proposal means, JSON-ready."""
        fields = {"names": self.names, "hashes": self.hashes, "methods": self.methods, "groups": self.groups}
        bounds = {"weights": self.weight_range, "blocks": BLOCK_RANGE, "rank": self.rank, "sum_of_ranks": self.sum_of_ranks}
        own = {p.name: [p.default, p.low, p.high, p.choices] for p in self.parameters}
        anchor = {"anchored": True} if self.anchored else {}
        return {**fields, **bounds, "dtype": self.dtype, "seed": self.seed, "parameters": own, **anchor}

    def suggest(self, trial: optuna.trial.BaseTrial) -> Recipe:
        """Let the sampler choose every value and return the recipe.

        Every trial gets a value for every parameter, also for those that its method does not read: a space without conditions is
        one that a Gaussian process can model.
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
            else:
                values[parameter.name] = trial.suggest_float(parameter.name, parameter.low, parameter.high)
        return self.recipe(values)

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe that a set of parameter values means.

        A block or method parameter that is not named keeps its default; a block weight of 1 changes nothing and is left out, so that
        equal merges have equal hashes.
        """
        method = str(values.get("method", self.methods[0]))
        blocks = tuple(
            {group: weight for group in groups if (weight := round(float(values.get(f"block:{name}:{group}", 1.0)), 4)) != 1.0}
            for name, groups in zip(self.names, self.groups, strict=True)
        )
        chosen = {p.name: values.get(p.name, p.default) for p in METHODS[method].parameters}
        own: dict[str, Any] = {name: round(value, 4) if isinstance(value, float) else value for name, value in chosen.items()}
        return Recipe(
            method=method,
            weights=self._weights(values),
            sources=self.hashes,
            blocks=blocks,
            rank=self.rank or (None if METHODS[method].cost == "factors" else self.sum_of_ranks),
            dtype=self.dtype,
            seed=self.seed if METHODS[method].seeded else 0,
            **own,
        )

    def _weights(self, values: Mapping[str, Any]) -> tuple[float, ...]:
        weights = tuple(round(float(values[f"weight:{name}"]), 4) for name in self.weighed)
        return (round(1 - sum(weights), 4), *weights) if self.anchored else weights


def known_methods(methods: Sequence[str], count: int) -> Sequence[str]:
    """The methods, if all exist and merge so many sources.

    Raises:
        UsageError: naming the first that does not, and those that do.
    """
    fitting = [name for name, method in METHODS.items() if count <= (method.most or count)]
    for method in methods:
        if method not in METHODS:
            raise UsageError(f"there is no merge method {method!r}", where="--methods", remedy=f"choose from {', '.join(fitting)}")
        if method not in fitting:
            problem = f"the method {method!r} merges at most {METHODS[method].most} sources (got {count})"
            raise UsageError(problem, where="--methods", remedy=f"choose from {', '.join(fitting)}")
    return methods


def space_for(
    adapters: Sequence[Adapter], *, budget: int, methods: Sequence[str], rank: int | None, dtype: Dtype, seed: int
) -> SearchSpace:
    """The space that a budget can search: block weights only as far as there are trials for them.

    The families split first where it matters most: the U-Net's output half, which paints, from its input half, which
    composes; then the text encoder; then the middle.

    Raises:
        UsageError: there is no such method.
    """
    count = len(adapters)
    present = [{family_of(block_of(path)) for path in adapter.modules} for adapter in adapters]
    return SearchSpace(
        names=tuple(a.name for a in adapters),
        hashes=tuple(a.sha256 for a in adapters),
        methods=("linear" if rank is None else "svd", *dict.fromkeys(m for m in known_methods(methods, count) if m not in _SUMS)),
        groups=_groups(present, budget),
        rank=rank,
        sum_of_ranks=max(sum(a.modules[path].rank for a in adapters if path in a.modules) for a in adapters for path in a.modules),
        dtype=dtype,
        seed=seed,
    )


def space_of_models(
    names: Sequence[str],
    hashes: Sequence[str],
    blocks: AbstractSet[str],
    *,
    budget: int,
    methods: Sequence[str],
    dtype: Dtype,
    seed: int,
    anchored: bool,
) -> SearchSpace:
    """The same for full models.

    Args:
        names: of the models.
        hashes: their SHA-256.
        blocks: the families of blocks that they have.
        budget: trials beyond the baselines.
        methods: merge methods to choose from beside the weighted sum.
        dtype: of the merged model.
        seed: of random masks.
        anchored: the first model is what the others change.

    Raises:
        UsageError: there is no such method.
    """
    moving = len(names) - anchored
    groups = _groups([blocks] * moving, budget)
    return SearchSpace(
        names=tuple(names),
        hashes=tuple(hashes),
        methods=("linear", *dict.fromkeys(m for m in known_methods(methods, len(names)) if m not in _SUMS)),
        groups=((), *groups) if anchored else groups,
        rank=None,
        sum_of_ranks=None,
        dtype=dtype,
        seed=seed,
        anchored=anchored,
    )


def _groups(present: Sequence[AbstractSet[str]], budget: int) -> tuple[tuple[str, ...], ...]:
    """Per source the families of blocks that get a weight of their own, of those that it has."""
    count = len(present)
    allowed = max(0, budget // _TRIALS_PER_DIMENSION - count)
    per_source = min(len(_FAMILIES), allowed // count)
    chosen = [[family for family in _BY_EFFECT if family in families][:per_source] for families in present]
    return tuple(tuple(family for family in _FAMILIES if family in few) for few in chosen)
