"""Weights that are worth trying first, whatever the sources draw: equal ones, uneven ones, and those that strengths and roles suggest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimizer.inspection.strength import balanced_weights
from optimizer.search.labels import BALANCED, BY_ROLE, EQUAL_LOW, EQUAL_MEDIUM, primary_label

_EQUAL = {EQUAL_LOW: 0.6, EQUAL_MEDIUM: 0.7}
_PRIMARY, _SECONDARY = 0.8, 0.4
# Mean of the weights at which all sources are equally strong.
_MEAN = 0.7
# Characters and concepts are local and strong; a style needs more to be seen everywhere.
_ROLES = {"style": 0.7, "character": 0.5, "concept": 0.4}


@dataclass(frozen=True)
class Prior:
    """Weights of a plain weighted sum.

    Attributes:
        label: label of the trial.
        weights: one weight for each source.
    """

    label: str
    weights: tuple[float, ...]


def priors(names: Sequence[str], strengths: Sequence[float], roles: Sequence[str] = ()) -> tuple[Prior, ...]:
    """Returns weights to try first, the most promising first.

    They are: weights in inverse proportion to the sources' strengths, weights by their roles, each source before the others, and equal
    weights.

    Args:
        names: names of the sources, in order.
        strengths: norm of each source's change, on modules that all of them change. If one is 0, they suggest nothing.
        roles: role of each source; empty if they are not known. Equal roles suggest nothing.
    """
    count = len(names)
    balanced = balanced_weights(strengths)
    found = [Prior(BALANCED, tuple(_MEAN * count * weight for weight in balanced))] if balanced else []
    if len(set(roles)) > 1:
        found.append(Prior(BY_ROLE, tuple(_ROLES[role] for role in roles)))
    for k, name in enumerate(names):
        found.append(Prior(primary_label(name), tuple(_PRIMARY if i == k else _SECONDARY for i in range(count))))
    return (*found, *(Prior(label, (weight,) * count) for label, weight in _EQUAL.items()))
