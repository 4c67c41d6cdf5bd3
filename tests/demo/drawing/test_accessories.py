"""Accessories sit on things, change the picture, and are no hats."""

from __future__ import annotations

import numpy as np
import pytest

from studies.demo.base_model.tokenizer import caption_words
from studies.demo.drawing.accessories import ACCESSORIES, Worn, dressed, random_worn
from studies.demo.drawing.objects import OBJECTS
from studies.demo.drawing.scenes import Thing


@pytest.mark.parametrize("accessory", ACCESSORIES)
@pytest.mark.parametrize("name", OBJECTS)
def test_it_stands_on_the_highest_point(name: str, accessory: str) -> None:
    bare = Thing(name, "red")
    worn = dressed(bare, Worn(accessory, "blue", (0, 0, 255), (255, 255, 255)))
    top = min(float(p.points[:, 1].min()) for p in bare.parts())
    added = worn.parts()[len(bare.parts()) :]
    assert worn.phrase() == bare.phrase()
    assert min(float(p.points[:, 1].min()) for p in added) < top < max(float(p.points[:, 1].max()) for p in added)


def test_every_accessory_occurs_and_none_is_a_hat() -> None:
    rng = np.random.default_rng(0)
    assert {random_worn(rng).accessory for _ in range(200)} == set(ACCESSORIES)
    assert "hat" not in ACCESSORIES


def test_its_phrase_names_its_colour() -> None:
    words = random_worn(np.random.default_rng(1)).phrase().split()
    assert words[:2] == ["with", "a"]
    assert words[2] in caption_words()
    assert words[3] in ACCESSORIES
