"""Options with one value a source: the texts ``NAME=VALUE``, and the sources that they name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from optimizer.errors import UsageError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Named(Generic[Value]):
    """One text ``NAME=VALUE``.

    Attributes:
        source: name of a source, or its position, from 1.
        value: value that the text gives for the source.
    """

    source: str
    value: Value


def parse_named(
    texts: Sequence[str], option: str, read: Callable[[str], Value | None], remedy: str, noun: str = "number"
) -> tuple[Named[Value], ...]:
    """Returns the values in texts ``NAME=VALUE``.

    Args:
        texts: texts of an option.
        option: the option, for errors.
        read: returns the value in the text behind ``=``; None if it is none that the option takes.
        remedy: what to write instead of an invalid text.
        noun: kind of the values, for errors.

    Raises:
        UsageError: a text has another form or another value, or names a source for the second time.
    """
    found: list[Named[Value]] = []
    for text in texts:
        name, _, written = text.rpartition("=")
        value = read(written)
        if not name or value is None:
            raise UsageError(f"got {text!r}", where=option, remedy=remedy)
        if any(name == other.source for other in found):
            raise UsageError(f"names {name} twice", where=option, remedy=f"give one {noun} for each source")
        found.append(Named(name, value))
    return tuple(found)


def number(text: str) -> float:
    """Returns the number in a text; NaN if there is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def by_source(given: Sequence[Named[Value]], names: Sequence[str], option: str, noun: str = "number") -> dict[str, Value]:
    """Returns the value that is given for each named source, in the order of the sources.

    A text names a source by its name, or else by its position, from 1.

    Args:
        given: parsed texts of an option.
        names: names of the sources, in order.
        option: the option, for errors.
        noun: kind of the values, for errors.

    Raises:
        UsageError: a text names no source, or two texts name the same one.
    """
    positions = {str(position): name for position, name in enumerate(names, start=1)}
    found: dict[str, Value] = {}
    for each in given:
        name = each.source if each.source in names else positions.get(each.source, "")
        if not name:
            remedy = f"name one of {', '.join(names)}, or a position from 1 to {len(names)}"
            raise UsageError(f"there is no source {each.source!r}", where=option, remedy=remedy)
        if name in found:
            raise UsageError(f"names {name} twice", where=option, remedy=f"give one {noun} for each source")
        found[name] = each.value
    return {name: found[name] for name in names if name in found}
