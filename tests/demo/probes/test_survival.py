"""What is left of a drawing: nothing without it, all of it in itself, and less the more is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from studies.demo.drawing.characters import CHARACTERS
from studies.demo.drawing.scenes import Scene, Thing, swapped
from studies.demo.drawing.softening import blur
from studies.demo.drawing.styles import FLAT, STYLES, Style
from studies.demo.probes.accuracy import stacked
from studies.demo.probes.drawings import Drawing
from studies.demo.probes.survival import style_survival, thing_survival

BALL = Drawing(Scene((Thing("ball", "red"),), "room"), (FLAT,), 3)
FINE = 0.7


def _pictures(*drawings: Drawing) -> tuple[torch.Tensor, ...]:
    return tuple(stacked([d]).float() / 127.5 - 1 for d in drawings)


def _with(name: str, drawing: Drawing = BALL) -> Drawing:
    if name == "hat":
        return replace(drawing, scene=replace(drawing.scene, hat=True))
    return replace(drawing, scene=swapped(drawing.scene, 0, Thing(name, character=CHARACTERS[name])))


@pytest.mark.parametrize("name", [*CHARACTERS, "hat"])
def test_a_thing_is_there_or_not_or_in_part(name: str) -> None:
    before, after = _pictures(BALL, _with(name))
    kept = [float(thing_survival(before + (after - before) * share, before, after, FINE)) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert kept[-1] == pytest.approx(1, abs=1e-4)
    faded = [float(thing_survival(blur(after, sigma), before, after, FINE)) for sigma in (0.4, 1, 2, 4)]
    assert faded == sorted(faded, reverse=True)
    assert faded[0] > 0.8
    assert faded[-1] < 0.5


def test_a_thing_in_other_colours_is_still_there() -> None:
    before, after, other = _pictures(BALL, _with("owl"), replace(_with("owl"), styles=(Style(fill="rotated"),)))
    assert float(thing_survival(other, before, after, FINE)) > 0.6


def test_another_thing_in_its_place_is_not_it() -> None:
    before, after, other = _pictures(BALL, _with("owl"), replace(BALL, scene=swapped(BALL.scene, 0, Thing("cup", "blue"))))
    assert float(thing_survival(other, before, after, FINE)) < 0.3


@pytest.mark.parametrize("name", STYLES)
def test_the_share_of_a_style_is_read(name: str) -> None:
    before, after = _pictures(BALL, replace(BALL, styles=(STYLES[name],)))
    texture = STYLES[name].texture != "none"
    for share in (0.0, 0.3, 0.8, 1.0):
        assert float(style_survival(before + (after - before) * share, before, after, texture=texture)) == pytest.approx(share, abs=0.01)
    lost = blur(after, 3.0)
    assert float(style_survival(lost, before, after, texture=texture)) < (0.3 if texture else 1)
