"""What glowing outlines are worth: all in a dark picture, less the brighter it is."""

from __future__ import annotations

import pytest
import torch

from studies.demo.drawing.scenes import Scene, Thing
from studies.demo.drawing.styles import FLAT, STYLES, Style
from studies.demo.probes.accuracy import stacked
from studies.demo.probes.darkness import darkness
from studies.demo.probes.drawings import Drawing


def _pictures(style: Style, *places: str) -> torch.Tensor:
    scenes = [Scene((Thing("ball", "red"),), place) for place in places]
    return stacked([Drawing(scene, (style,), 0) for scene in scenes]).float() / 127.5 - 1


def test_a_picture_in_neon_is_dark_and_a_bright_day_is_not() -> None:
    places = ("meadow", "beach", "room", "snow")
    assert darkness(_pictures(STYLES["neon"], *places)).tolist() == [1.0] * len(places)
    assert max(darkness(_pictures(FLAT, *places)).tolist()) < 0.5


def test_it_grows_with_the_share_of_dark_places() -> None:
    pictures = torch.ones(5, 3, 64, 64)
    for row, picture in enumerate(pictures):
        picture[:, : 8 * row] = -1
    found = darkness(pictures).tolist()
    assert found == pytest.approx([0.3, 0.3 + 0.7 * 0.125 / 0.4, 0.3 + 0.7 * 0.25 / 0.4, 0.3 + 0.7 * 0.375 / 0.4, 1.0], abs=1e-3)
