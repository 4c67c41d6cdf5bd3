"""The words that prompts about the demo world are built from, as a file of the kind that ``optimize --prompts`` takes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import yaml

from studies.demo.drawing.backgrounds import BACKGROUNDS
from studies.demo.drawing.objects import OBJECTS
from studies.demo.drawing.palette import COLOURS
from studies.demo.drawing.scenes import PLACES


def words() -> dict[str, list[str]]:
    """``subjects``, ``settings`` for one subject, ``wide_settings`` for several."""
    return {
        "subjects": [f"a {colour} {thing}" for colour, thing in product(COLOURS, OBJECTS)],
        "settings": [f"{place}, {background}" for place, background in product(PLACES, BACKGROUNDS)],
        "wide_settings": list(BACKGROUNDS),
    }


def write_words(path: Path) -> None:
    """Write the words as YAML."""
    path.write_text(yaml.safe_dump(words(), sort_keys=False), encoding="utf-8")
