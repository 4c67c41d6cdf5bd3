"""Drawing: the same seed draws the same picture, every style changes it, and the families keep away from the demo sources' own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from studies.demo.drawing.characters import CHARACTERS, damaged, random_character
from studies.demo.drawing.draw import SIZE, draw
from studies.demo.drawing.scenes import Scene, Thing, random_scene, with_character
from studies.demo.drawing.styles import FLAT, STYLES, TEXTURES, Style, random_style

SCENE = Scene((Thing("ball", "red"),), "meadow", "left")


def _drawn(scene: Scene, *styles: Style, seed: int = 0) -> np.ndarray:
    return draw(scene, styles or (FLAT,), rng=np.random.default_rng(seed))


def test_same_seed_draws_same_picture() -> None:
    picture = _drawn(SCENE)
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.dtype == np.float32
    assert 0 <= picture.min() < picture.max() <= 1
    assert np.array_equal(picture, _drawn(SCENE))
    assert not np.array_equal(picture, _drawn(SCENE, seed=1))


@pytest.mark.parametrize("style", [*STYLES.values(), *(Style(texture=t) for t in TEXTURES if t != "none")])
def test_every_style_changes_the_picture(style: Style) -> None:
    assert np.abs(_drawn(SCENE, style) - _drawn(SCENE)).mean() > 0.01


def test_combined_styles_show_paint_of_one_and_texture_of_the_other() -> None:
    neon, mosaic = STYLES["neon"], STYLES["mosaic"]
    both = _drawn(SCENE, neon, mosaic)
    assert np.abs(both - _drawn(SCENE, neon)).mean() > 0.02
    assert np.abs(both - _drawn(SCENE, mosaic)).mean() > 0.02


def test_hat_and_character_are_seen() -> None:
    assert np.abs(_drawn(replace(SCENE, hat=True)) - _drawn(SCENE)).mean() > 0.005
    shown = with_character(SCENE, "rivet", CHARACTERS["robot"], np.random.default_rng(0))
    assert shown.caption() == "rivet, left, meadow"
    assert np.abs(_drawn(shown) - _drawn(SCENE)).mean() > 0.02


def test_captions_say_what_is_drawn() -> None:
    assert SCENE.caption() == "a red ball, left, meadow"
    assert SCENE.caption("tesse") == "a red ball, left, meadow, tesse"
    two = Scene((Thing("ball", "red"), Thing("car", "blue")), "night")
    assert two.caption() == "a red ball and a blue car, night"


def test_random_families_never_hold_the_sources_own() -> None:
    rng = np.random.default_rng(3)
    styles = [random_style(rng) for _ in range(300)]
    assert not {"tiles", "hatch"} & {s.texture for s in styles}
    assert ("dark", "bright") not in {(s.fill, s.ink) for s in styles}
    own = {c.silhouette for c in CHARACTERS.values()}
    assert not own & {random_character(rng).silhouette for _ in range(300)}


def test_damaged_character_differs_in_one_feature() -> None:
    rng = np.random.default_rng(4)
    robot = CHARACTERS["robot"]
    for _ in range(20):
        other = damaged(robot, rng)
        assert sum(getattr(robot, f) != getattr(other, f) for f in ("body", "eyes", "top", "limbs", "belly", "colour", "second")) <= 1


def test_random_scenes_hold_one_or_two_things() -> None:
    rng = np.random.default_rng(5)
    counts = [len(random_scene(rng, pairs=0.4).things) for _ in range(300)]
    assert set(counts) == {1, 2}
    assert 0.3 < np.mean([c == 2 for c in counts]) < 0.5
