"""Groups of demo sources: those that solving was developed on, and those that it is reported on."""

from __future__ import annotations

Group = tuple[str, ...]

DEVELOPMENT: tuple[Group, ...] = (("octopus", "owl"), ("robot", "hat"), ("neon", "octopus"), ("mosaic", "hat"), ("mosaic", "owl", "hat"))
"""Groups that defaults were chosen on; they are never part of a result."""

PAIRS: tuple[Group, ...] = (
    ("neon", "hat"),
    ("robot", "owl"),
    ("pencil", "octopus"),
    ("neon", "owl"),
    ("robot", "octopus"),
    ("pencil", "hat"),
    ("owl", "hat"),
    ("neon", "pencil"),
    ("mosaic", "octopus"),
)
LARGER: tuple[Group, ...] = (
    ("neon", "octopus", "hat"),
    ("pencil", "robot", "hat"),
    ("robot", "octopus", "owl"),
    ("mosaic", "robot", "owl"),
    ("mosaic", "octopus", "owl", "hat"),
)

REPORT = (*PAIRS, *LARGER)
"""Groups of the result, of which none was developed on."""

SETS = {"development": DEVELOPMENT, "report": REPORT, "pairs": PAIRS, "larger": LARGER}


def named(names: list[str]) -> list[Group]:
    """Returns the groups of some sets, or of names such as ``neon+hat``, each once."""
    return list(dict.fromkeys(group for name in names for group in SETS.get(name, (tuple(name.split("+")),))))
