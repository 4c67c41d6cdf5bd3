"""What the user wants of each source: the texts ``NAME=NUMBER`` of ``--priority`` and ``--keep``, and the sources that they name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optimizer.errors import UsageError

PRIORITY, KEEP = "--priority", "--keep"

# Beyond this ratio of two priorities, one source would decide alone; far beyond it, powers of shares are no longer distinguishable from 1.
_LARGEST = 1000.0


@dataclass(frozen=True)
class AimText:
    """One text ``NAME=NUMBER``.

    Attributes:
        source: name of a source, or its position, from 1.
        value: priority or share.
    """

    source: str
    value: float


def parse_priorities(texts: Sequence[str]) -> tuple[AimText, ...]:
    """Returns the priorities in texts.

    Raises:
        UsageError: a text is no ``NAME=NUMBER`` with a number from 0.001 to 1000, or names a source for the second time.

    Example:
        >>> parse_priorities(["hero=2"])
        (AimText(source='hero', value=2.0),)
    """
    remedy = "write NAME=NUMBER with a number from 0.001 to 1000, such as hero=2; what is not named has 1"
    return _parsed(texts, PRIORITY, lambda value: 1 / _LARGEST <= value <= _LARGEST, remedy)


def parse_targets(texts: Sequence[str]) -> tuple[AimText, ...]:
    """Returns the smallest shares that a merge may keep, in texts.

    Raises:
        UsageError: a text is no ``NAME=SHARE`` with a share above 0 and at most 1, or names a source for the second time.

    Example:
        >>> parse_targets(["hero=0.9"])
        (AimText(source='hero', value=0.9),)
    """
    return _parsed(texts, KEEP, lambda value: 0 < value <= 1, "write NAME=SHARE with a share above 0 and at most 1, such as hero=0.9")


def _parsed(texts: Sequence[str], option: str, allowed: Callable[[float], bool], remedy: str) -> tuple[AimText, ...]:
    found: list[AimText] = []
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or not allowed(value):
            raise UsageError(f"got {text!r}", where=option, remedy=remedy)
        if any(name == other.source for other in found):
            raise UsageError(f"names {name} twice", where=option, remedy="give one number for each source")
        found.append(AimText(name, value))
    return tuple(found)


def by_source(aims: Sequence[AimText], names: Sequence[str], option: str) -> dict[str, float]:
    """Returns the number that is given for each named source, in the order of the sources.

    A text names a source by its name, or else by its position, from 1.

    Args:
        aims: parsed texts of an option.
        names: names of the sources, in order.
        option: the option, for errors.

    Raises:
        UsageError: a text names no source, or two texts name the same one.
    """
    positions = {str(position): name for position, name in enumerate(names, start=1)}
    found: dict[str, float] = {}
    for aim in aims:
        name = aim.source if aim.source in names else positions.get(aim.source, "")
        if not name:
            remedy = f"name one of {', '.join(names)}, or a position from 1 to {len(names)}"
            raise UsageError(f"there is no source {aim.source!r}", where=option, remedy=remedy)
        if name in found:
            raise UsageError(f"names {name} twice", where=option, remedy="give one number for each source")
        found[name] = aim.value
    return {name: found[name] for name in names if name in found}
