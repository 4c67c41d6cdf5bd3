"""Accessories sit on things, change the picture, and are no hats."""

from __future__ import annotations

import numpy as np
import pytest

from studies.demo.accessories import ACCESSORIES, Dressed, dressed
from studies.demo.objects import OBJECTS
from studies.demo.scenes import Thing, random_thing


@pytest.mark.parametrize("accessory", ACCESSORIES)
@pytest.mark.parametrize("name", OBJECTS)
def test_it_stands_on_the_highest_point(name: str, accessory: str) -> None:
    bare, worn = Thing(name, "red"), Dressed(name, "red", accessory=accessory)
    top = min(float(p.points[:, 1].min()) for p in bare.parts())
    added = worn.parts()[len(bare.parts()) :]
    assert worn.phrase() == bare.phrase()
    assert min(float(p.points[:, 1].min()) for p in added) < top < max(float(p.points[:, 1].max()) for p in added)


def test_every_accessory_occurs() -> None:
    rng = np.random.default_rng(0)
    assert {dressed(random_thing(rng), rng).accessory for _ in range(100)} == set(ACCESSORIES)
    assert "hat" not in ACCESSORIES
