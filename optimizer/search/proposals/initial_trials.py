"""The initial trials of every study: the baselines, then common default recipes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optimizer.merging import METHODS
from optimizer.merging.methods.solved import CHECKPOINT
from optimizer.search.labels import EQUAL_NORM, EQUAL_USUAL, NAIVE, SIMPLE, STACK, alone_label, is_alone, source_of
from optimizer.search.proposals.space import SearchSpace, block_key, weight_key
from studies.records import TrialRecord

# A source alone has preservation 1, less the ridge, if its effect is visible at all.
_SEEN = 0.9
# Shares that are commonly tried first between two models, beside the mean.
_SHARES = (0.3, 0.7)
# Weights that differ by less are too alike for two of the few initial trials.
_SAME = 0.05


@dataclass(frozen=True)
class Start:
    """A trial that the sampler does not propose: its label and its parameter values in the search space."""

    label: str
    values: dict[str, Any]


def idle_warning(record: TrialRecord) -> str:
    """Returns a warning if a source alone does not change the pictures of its own prompts; empty for every other trial.

    No merge can measurably preserve such a source. One that does not count in the score, and so has no share, is told apart from trials.
    """
    if not is_alone(record.label) or record.evaluation is None:
        return ""
    name = source_of(record.label)
    share = record.evaluation.sources[name].preservation
    if share > _SEEN or math.isnan(share):
        return ""
    return f"{name} alone hardly changes the pictures that ask for it: check its trigger (--triggers), its base and its strength"


def baselines(space: SearchSpace) -> list[Start]:
    """Returns the baselines: each source alone, the stack (all weights 1) and the naive merge (all weights 1/N).

    They do not count towards the budget. Full models that are merged without a base have no stack.
    """
    count = len(space.names)
    alone = [Start(alone_label(name), _linear(space, [float(i == k) for i in range(count)])) for k, name in enumerate(space.names)]
    stack = [] if space.anchored else [Start(STACK, _linear(space, [1.0] * count))]
    return [*alone, *stack, Start(NAIVE, _linear(space, [1 / count] * count))]


def defaults(space: SearchSpace, limit: int) -> list[Start]:
    """Returns the first ``limit`` default recipes, the most promising first; those that are nearly an earlier one are left out.

    The recipes are equal weights that preserve the norm of the sum for orthogonal sources (1/√N), the common 0.8, each method with the
    defaults of its paper, weights that are worth trying (``SearchSpace.priors``), and the earlier checkpoints of methods that are trained.
    Where the user gives ranges or fixed weights, equal weights outside are left out, and other weights are moved to the nearest inside.
    Full models that are merged without a base have two recipes, one closer to the first and one to the others.
    """
    count = len(space.names)
    if space.anchored:
        return [Start(f"{share:g} of the others", _linear(space, [0.0] + [share / (count - 1)] * (count - 1))) for share in _SHARES][:limit]
    plain = [Start(EQUAL_NORM, _linear(space, [1 / math.sqrt(count)] * count)), Start(EQUAL_USUAL, _linear(space, [0.8] * count))]
    plain = [start for start in plain if space.covers(start.values)]
    ones = _moved(space, [1.0] * count)
    named = [Start(f"{method} default", ones | {"method": method}) for method in space.methods[1:]]
    if not space.priors:
        return [*plain, *named, *_checkpoints(space, ones)][:limit]
    solved = [start for start, method in zip(named, space.methods[1:], strict=True) if METHODS[method].solved]
    others = [start for start in named if start not in solved]
    ordered = [*plain, *solved, *others[:1], *_priors(space), *_checkpoints(space, ones), *others[1:]]
    return _distinct(space, ordered)[:limit]


def _priors(space: SearchSpace) -> list[Start]:
    """Returns the weights that are worth trying; those that become 0 in the ranges of the search are left out, as they lose a source."""
    starts = [(prior, Start(prior.label, _linear(space, list(prior.weights)))) for prior in space.priors]
    equal = [start for prior, start in starts if prior.label in SIMPLE and space.covers(start.values)]
    moved = [Start(prior.label, _moved(space, list(prior.weights)) | _method(space)) for prior, _ in starts if prior.label not in SIMPLE]
    return [*(start for start in moved if all(space.recipe(start.values).weights)), *equal]


def _distinct(space: SearchSpace, starts: Sequence[Start]) -> list[Start]:
    """Returns the trials without those that are like an earlier one, apart from weights that round to the same multiples of ``_SAME``."""
    found: dict[tuple[str, tuple[int, ...]], Start] = {}
    for start in starts:
        recipe = space.recipe(start.values)
        key = recipe.replaced(weights=(1.0,) * len(recipe.weights)).hash, tuple(round(weight / _SAME) for weight in recipe.weights)
        found.setdefault(key, start)
    return list(found.values())


def _checkpoints(space: SearchSpace, start: dict[str, Any]) -> list[Start]:
    trained = [method for method in space.methods if METHODS[method].reads(CHECKPOINT.name)]
    earlier = [value for value in reversed(CHECKPOINT.choices) if value != CHECKPOINT.start]
    return [Start(f"{method} at {at} %", start | {"method": method, CHECKPOINT.name: at}) for method in trained for at in earlier]


def _linear(space: SearchSpace, weights: Sequence[float]) -> dict[str, Any]:
    return _filled(space, weights) | _method(space)


def _method(space: SearchSpace) -> dict[str, Any]:
    """Returns the value that chooses the weighted sum; nothing if there is no choice."""
    return {"method": space.methods[0]} if len(space.methods) > 1 else {}


def _moved(space: SearchSpace, weights: Sequence[float]) -> dict[str, Any]:
    """Returns the parameter values of weights that are moved into the ranges of the search, and onto its grid."""
    fixed, bounds = space.bounds.frozen, space.bounds
    inside = [
        fixed[name] if name in fixed else bounds.nearest(weight, *space.range_of(name))
        for name, weight in zip(space.names, weights, strict=True)
    ]
    return _filled(space, inside)


def _filled(space: SearchSpace, weights: Sequence[float]) -> dict[str, Any]:
    blocks = {block_key(name, group): 1.0 for name, groups in zip(space.names, space.groups, strict=True) for group in groups}
    own = {parameter.name: parameter.start for parameter in space.parameters}
    weighed = list(zip(space.names, weights, strict=True))[space.anchored :]
    proposed = {weight_key(name): weight for name, weight in weighed if weight != space.bounds.frozen.get(name)}
    return proposed | blocks | own
