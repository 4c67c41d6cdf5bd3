"""Settings of a fake base model, parsed from ``fake:latency=0.2&fail=0.1&oom=0.05&size=8``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from urllib.parse import parse_qsl

from optimizer.errors import UsageError

PREFIX = "fake:"
_SIZES = (4, 512)
_REMEDY = "write fake: with any of latency=SECONDS, fail=SHARE, oom=SHARE, size=PIXELS, such as fake:latency=0.2&fail=0.1"


def is_fake(base: str) -> bool:
    """Returns whether a base is a fake one."""
    return base.startswith(PREFIX)


@dataclass(frozen=True)
class FakeSpec:
    """Settings of a fake base.

    Attributes:
        latency: seconds that one call of ``render`` takes, 0 to 3600.
        fail: share of merges whose images contain NaN, 0 to 1.
        oom: share of merges that run out of memory, 0 to 1; ``fail + oom`` is at most 1.
        size: width and height of an image, 4 to 512 pixels.
    """

    latency: float = 0.0
    fail: float = 0.0
    oom: float = 0.0
    size: int = 16

    @classmethod
    def of(cls, text: str) -> FakeSpec:
        """Parses ``fake:`` followed by a query string.

        Raises:
            UsageError: a setting is unknown or repeated, or a value is out of range.
        """
        query = text.removeprefix(PREFIX)
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError as error:
            raise _refused(f"{query!r} is not a list of settings") from error
        values: dict[str, float] = {}
        for name, value in pairs:
            if name in values:
                raise _refused(f"{name} is given twice")
            values[name] = _value(name, value)
        spec = cls(**values)  # type: ignore[arg-type]  # _READERS returns an int for size only
        if spec.fail + spec.oom > 1:
            raise _refused(f"fail and oom are {spec.fail:g} and {spec.oom:g}, more than 1 together")
        return spec

    @property
    def identity(self) -> str:
        """Canonical spelling of the settings, without the latency, which does not change results."""
        return PREFIX + "&".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name != "latency")


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not low <= (value := float(text)) <= high:  # also rejects NaN
            raise ValueError
        return value

    return read


def _pixels(text: str) -> int:
    if not _SIZES[0] <= (value := int(text)) <= _SIZES[1]:
        raise ValueError
    return value


_READERS: dict[str, tuple[Callable[[str], float], str]] = {
    "latency": (_number(0, 3600), "a number from 0 to 3600"),
    "fail": (_number(0, 1), "a share from 0 to 1"),
    "oom": (_number(0, 1), "a share from 0 to 1"),
    "size": (_pixels, f"a whole number from {_SIZES[0]} to {_SIZES[1]}"),
}


def _value(name: str, text: str) -> float:
    if name not in _READERS:
        raise _refused(f"a fake base has no setting {name!r}")
    read, kind = _READERS[name]
    try:
        return read(text)
    except ValueError as error:
        raise _refused(f"{name} is {text!r}, not {kind}") from error


def _refused(problem: str) -> UsageError:
    return UsageError(problem, where="--base", remedy=_REMEDY)
