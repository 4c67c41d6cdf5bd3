"""The trials that every study begins with: the baselines, then the field's default recipes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from optimizer.search.labels import NAIVE, STACK, alone_label, is_alone, source_of
from optimizer.search.proposals.space import SearchSpace
from studies.records import TrialRecord

# A source alone keeps all of itself, less what the ridge takes, wherever its effect can be seen.
_SEEN = 0.9
# What people try first between two models, beside the mean.
_SHARES = (0.3, 0.7)


@dataclass(frozen=True)
class Start:
    """A trial that is not proposed by the sampler: its label in every table, and its parameters in the search space."""

    label: str
    values: dict[str, Any]


def idle_warning(record: TrialRecord) -> str:
    """What to tell about a source that, alone, does not move the pictures of the prompts that ask for it, so that no merge can be
    seen to keep it; empty for every other trial."""
    if not is_alone(record.label) or record.evaluation is None:
        return ""
    name = source_of(record.label)
    if record.evaluation.sources[name].preservation > _SEEN:
        return ""
    return f"{name} alone hardly changes the pictures that ask for it: check its trigger (--triggers), its base and its strength"


def baselines(space: SearchSpace) -> list[Start]:
    """Each source alone, the stack (all at 1), and the naive merge (all at 1/N); they come before the budget. Models that merge with each
    other, and not over a base, have no stack."""
    count = len(space.names)
    alone = [Start(alone_label(name), _linear(space, [float(i == k) for i in range(count)])) for k, name in enumerate(space.names)]
    stack = [] if space.anchored else [Start(STACK, _linear(space, [1.0] * count))]
    return [*alone, *stack, Start(NAIVE, _linear(space, [1 / count] * count))]


def defaults(space: SearchSpace, limit: int) -> list[Start]:
    """The first ``limit`` of the recipes that people try first.

    Equal weights that keep the sum's size for orthogonal sources (1/√N), the common 0.8, and each method as its paper sets it. Models that
    merge with each other are tried nearer the first, and nearer the others.
    """
    count = len(space.names)
    if space.anchored:
        return [Start(f"{share:g} of the others", _linear(space, [0.0] + [share / (count - 1)] * (count - 1))) for share in _SHARES][:limit]
    plain = [Start("equal 1/√N", _linear(space, [1 / math.sqrt(count)] * count)), Start("equal 0.8", _linear(space, [0.8] * count))]
    named = [Start(f"{method} default", _filled(space, [1.0] * count) | {"method": method}) for method in space.methods[1:]]
    return [*plain, *named][:limit]


def _linear(space: SearchSpace, weights: list[float]) -> dict[str, Any]:
    method = {"method": space.methods[0]} if len(space.methods) > 1 else {}
    return _filled(space, weights) | method


def _filled(space: SearchSpace, weights: list[float]) -> dict[str, Any]:
    blocks = {f"block:{name}:{group}": 1.0 for name, groups in zip(space.names, space.groups, strict=True) for group in groups}
    own = {parameter.name: parameter.default for parameter in space.parameters}
    proposed = {name: weight for name, weight in zip(space.names, weights, strict=True) if name in space.weighed}
    return {f"weight:{name}": weight for name, weight in proposed.items()} | blocks | own
