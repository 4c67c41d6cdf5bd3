"""Weights that a search may propose: the texts of ``--weights`` and ``--freeze``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optimizer.errors import UsageError
from optimizer.search.config.named import Named, number, parse_named

WEIGHTS, FREEZE = "--weights", "--freeze"


def parse_ranges(texts: Sequence[str]) -> tuple[Named[tuple[float, float]], ...]:
    """Returns the ranges of weights in texts.

    Raises:
        UsageError: a text is no ``NAME=LOW:HIGH`` with LOW below HIGH, or names a source for the second time.

    Example:
        >>> parse_ranges(["hero=0.4:0.9"])
        (Named(source='hero', value=(0.4, 0.9)),)
    """
    remedy = "write NAME=LOW:HIGH with two numbers, such as hero=0.4:0.9"
    found = parse_named(texts, WEIGHTS, _range, remedy, "range")
    for text, (low, high) in zip(texts, (each.value for each in found), strict=True):
        if low >= high:
            remedy = "write NAME=LOW:HIGH, such as hero=0.4:0.9; a single weight is fixed with --freeze NAME=WEIGHT"
            raise UsageError(f"the first number of {text!r} is not below the second", where=WEIGHTS, remedy=remedy)
    return found


def parse_frozen(texts: Sequence[str]) -> tuple[Named[float], ...]:
    """Returns the fixed weights in texts.

    Raises:
        UsageError: a text is no ``NAME=WEIGHT``, or names a source for the second time.

    Example:
        >>> parse_frozen(["hero=0.8"])
        (Named(source='hero', value=0.8),)
    """
    return parse_named(texts, FREEZE, _finite, "write NAME=WEIGHT with a number, such as hero=0.8", "weight")


def _range(text: str) -> tuple[float, float] | None:
    low, _, high = text.partition(":")
    ends = number(low), number(high)
    return ends if all(map(math.isfinite, ends)) else None


def _finite(text: str) -> float | None:
    value = number(text)
    return value if math.isfinite(value) else None
