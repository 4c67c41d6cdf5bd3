"""Compatibility of full models: one pipeline class, and equal tensor names and shapes."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.checkpoints.model import Model
from optimizer.errors import BaseModelError


def check_same_kind(first: Model, other: Model) -> None:
    """Raises BaseModelError unless both models have the same pipeline class and prediction type."""
    if other.kind != first.kind:
        problem = f"{first.name} is a {first.kind}, {other.name} a {other.kind}"
        raise BaseModelError(problem, where=other.place, remedy="choose models of one family")
    if first.predicts and other.predicts and other.predicts != first.predicts:
        problem = f"{first.name} predicts {first.predicts}, {other.name} {other.predicts}, and what lies between draws nothing"
        raise BaseModelError(problem, where=other.place, remedy="choose models that were trained alike")


def mismatches(first: Model, others: Sequence[Model], base: Model | None = None) -> dict[tuple[str, str], str]:
    """Returns (part, tensor) → one-line description, for every weight tensor that is missing or differs in shape in some model.

    Counters and position indices, which only some folders contain, are not weights. The base may have whole parts, such as text encoders,
    that the models lack if they are denoisers only.
    """
    found: dict[tuple[str, str], str] = {}
    for other in (*others, *([base] if base else [])):
        for part, name in first.names:
            own, theirs = first.parts[part][name], other.parts.get(part, {}).get(name)
            if not own.merges:
                continue
            if theirs is None:
                found[part, name] = f"{part}.{name} is not in {other.name}"
            elif theirs.shape != own.shape:
                found[part, name] = f"{part}.{name} has shape {own.shape} in {first.name} and {theirs.shape} in {other.name}"
        extra = ((p, n) for p, n in other.names if other.parts[p][n].merges and n not in first.parts.get(p, {}))
        if other is base:
            extra = ((p, n) for p, n in extra if p in first.parts)
        found |= {(part, name): f"{part}.{name} is in {other.name} alone" for part, name in extra}
    return found
