"""Groups of demo sources: those that scores were chosen on, and those that their agreement is reported on."""

from __future__ import annotations

from benchmarks.solving.groups import Group

CHOOSE: tuple[Group, ...] = (
    ("mosaic", "robot"),
    ("neon", "owl"),
    ("owl", "hat"),
    ("pencil", "robot"),
    ("robot", "owl"),
    ("neon", "hat"),
    ("neon", "robot", "owl"),
    ("pencil", "robot", "hat"),
)
"""Groups that scores were chosen on; they are never part of a result."""

REPORT: tuple[Group, ...] = (
    ("robot", "hat"),
    ("neon", "octopus"),
    ("mosaic", "octopus"),
    ("pencil", "hat"),
    ("octopus", "owl"),
    ("pencil", "octopus"),
    ("mosaic", "owl"),
    ("mosaic", "owl", "hat"),
    ("neon", "octopus", "hat"),
)
"""Groups of the result, on which nothing was chosen."""

SETS = {"choose": CHOOSE, "report": REPORT}


def named(names: list[str]) -> list[Group]:
    """Returns the groups of some sets, or of names such as ``neon+hat``, each once."""
    return list(dict.fromkeys(group for name in names for group in SETS.get(name, (tuple(name.split("+")),))))
