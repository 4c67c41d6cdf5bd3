"""What the user wants of each source: the texts ``NAME=NUMBER`` of ``--priority`` and ``--keep``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optimizer.search.config.named import Named, number, parse_named

PRIORITY, KEEP = "--priority", "--keep"

# Beyond this ratio of two priorities, one source would decide alone; far beyond it, powers of shares are no longer distinguishable from 1.
_LARGEST = 1000.0


def parse_priorities(texts: Sequence[str]) -> tuple[Named[float], ...]:
    """Returns the priorities in texts.

    Raises:
        UsageError: a text is no ``NAME=NUMBER`` with a number from 0.001 to 1000, or names a source for the second time.

    Example:
        >>> parse_priorities(["hero=2"])
        (Named(source='hero', value=2.0),)
    """
    remedy = "write NAME=NUMBER with a number from 0.001 to 1000, such as hero=2; what is not named has 1"
    return parse_named(texts, PRIORITY, _number_if(lambda value: 1 / _LARGEST <= value <= _LARGEST), remedy)


def parse_targets(texts: Sequence[str]) -> tuple[Named[float], ...]:
    """Returns the smallest shares that a merge may keep, in texts.

    Raises:
        UsageError: a text is no ``NAME=SHARE`` with a share above 0 and at most 1, or names a source for the second time.

    Example:
        >>> parse_targets(["hero=0.9"])
        (Named(source='hero', value=0.9),)
    """
    remedy = "write NAME=SHARE with a share above 0 and at most 1, such as hero=0.9"
    return parse_named(texts, KEEP, _number_if(lambda value: 0 < value <= 1), remedy)


def _number_if(allowed: Callable[[float], bool]) -> Callable[[str], float | None]:
    """Returns a function that returns the number in a text; None if there is none, or it is not allowed."""

    def read(text: str) -> float | None:
        value = number(text)
        return value if allowed(value) else None

    return read
