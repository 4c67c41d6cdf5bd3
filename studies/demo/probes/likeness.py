"""Likeness: how much of a character an observer sees in a thing that is like it, or that misses parts."""

from __future__ import annotations

import numpy as np

from studies.demo.drawing.characters import CHARACTERS, MISSING
from studies.demo.drawing.scenes import Thing

# How much each feature does for recognising a character, and how little of all of them is no likeness at all.
_FEATURES = {"body": 0.2, "eyes": 0.25, "top": 0.15, "limbs": 0.2, "belly": 0.05, "colour": 0.15}
_NO_LIKENESS = 0.45
# The parts without which hardly anybody takes a character for itself, and what is left of the likeness without them.
_KNOWN_BY = {"robot": ("eyes",), "octopus": ("eyes", "limbs"), "owl": ("eyes",)}
_INCOMPLETE = 0.6


def likeness(thing: Thing, name: str) -> float:
    """How much of the named character a thing shows.

    1 for itself, about a half with one feature replaced, a third without eyes or an octopus's arms, hardly anything with three replaced.
    """
    if thing.character is None:
        return 0.0
    alike = sum(share for f, share in _FEATURES.items() if getattr(thing.character, f) == getattr(CHARACTERS[name], f))
    whole = all(getattr(thing.character, f) != MISSING for f in _KNOWN_BY[name])
    return max(0.0, (alike - _NO_LIKENESS) / (1 - _NO_LIKENESS)) * (1.0 if whole else _INCOMPLETE)


def incomplete(name: str, rng: np.random.Generator) -> Thing:
    """The named character without one or all of the parts that it is known by."""
    parts = _KNOWN_BY[name]
    missing = parts if rng.random() < 0.4 else (str(rng.choice(parts)),)
    return Thing("creature", character=CHARACTERS[name].without(*missing))
