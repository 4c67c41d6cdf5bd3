"""The initial trials of every study: the baselines, then common default recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from optimizer.merging import METHODS
from optimizer.merging.methods.solved import CHECKPOINT
from optimizer.search.labels import EQUAL_NORM, EQUAL_USUAL, NAIVE, STACK, alone_label, is_alone, source_of
from optimizer.search.proposals.space import SearchSpace
from studies.records import TrialRecord

# A source alone has preservation 1, less the ridge, if its effect is visible at all.
_SEEN = 0.9
# Shares that are commonly tried first between two models, beside the mean.
_SHARES = (0.3, 0.7)


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
    """Returns the first ``limit`` default recipes.

    The recipes are equal weights that preserve the norm of the sum for orthogonal sources (1/√N), the common 0.8, each method with the
    defaults of its paper, and the earlier checkpoints of methods that are trained. Full models that are merged without a base have two
    recipes, one closer to the first and one to the others.
    """
    count = len(space.names)
    if space.anchored:
        return [Start(f"{share:g} of the others", _linear(space, [0.0] + [share / (count - 1)] * (count - 1))) for share in _SHARES][:limit]
    plain = [Start(EQUAL_NORM, _linear(space, [1 / math.sqrt(count)] * count)), Start(EQUAL_USUAL, _linear(space, [0.8] * count))]
    named = [Start(f"{method} default", _filled(space, [1.0] * count) | {"method": method}) for method in space.methods[1:]]
    return [*plain, *named, *_checkpoints(space)][:limit]


def _checkpoints(space: SearchSpace) -> list[Start]:
    trained = [method for method in space.methods if METHODS[method].reads(CHECKPOINT.name)]
    earlier = [value for value in reversed(CHECKPOINT.choices) if value != CHECKPOINT.start]
    start = _filled(space, [1.0] * len(space.names))
    return [Start(f"{method} at {at} %", start | {"method": method, CHECKPOINT.name: at}) for method in trained for at in earlier]


def _linear(space: SearchSpace, weights: list[float]) -> dict[str, Any]:
    method = {"method": space.methods[0]} if len(space.methods) > 1 else {}
    return _filled(space, weights) | method


def _filled(space: SearchSpace, weights: list[float]) -> dict[str, Any]:
    blocks = {f"block:{name}:{group}": 1.0 for name, groups in zip(space.names, space.groups, strict=True) for group in groups}
    own = {parameter.name: parameter.start for parameter in space.parameters}
    proposed = {name: weight for name, weight in zip(space.names, weights, strict=True) if name in space.weighed}
    return {f"weight:{name}": weight for name, weight in proposed.items()} | blocks | own
