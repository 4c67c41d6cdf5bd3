"""Labels of pictures that were drawn again: what is drawn, as far as it is left, and how much of it is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from studies.demo.drawing.characters import CHARACTERS
from studies.demo.drawing.scenes import Scene, Thing
from studies.demo.drawing.styles import FLAT, STYLES
from studies.demo.probes import redrawn as module
from studies.demo.probes.drawings import STYLE_TRAITS, TRAITS, Drawing
from studies.demo.probes.redrawing import Noise, Redrawer, load_redrawer
from studies.demo.probes.redrawn import half_neon_pool, hat_pool, incomplete_pool, redraw_pool, repainted_pool, without
from studies.demo.probes.textures import TEXTURED
from studies.demo.world import ASSETS, STEPS, demo_base

OWL = Drawing(Scene((Thing("owl", character=CHARACTERS["owl"]),), "room"), (FLAT,), 3)


@pytest.fixture(scope="module")
def redrawer() -> Redrawer:
    return load_redrawer(demo_base(), ASSETS / "sources")


def _labels(
    redrawer: Redrawer, steps: int, of: int, drawing: Drawing = OWL, *, composed: bool = False, **strengths: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Least and largest amount of each trait of one drawing that was drawn again."""
    task = module._Task(strengths, Noise(steps, of, 1), composed=composed, asked=bool(strengths))
    latents = redrawer.encode(drawing.pixels()[None])
    caption = module._caption(drawing.scene, strengths, np.random.default_rng(0))
    redraw = redrawer.redraw_composed if composed else redrawer.redraw
    pictures = redrawer.decode(redraw(latents, [caption], task.noise, strengths))
    least, most = (dict(zip(TRAITS, bounds[0].tolist(), strict=True)) for bounds in module._labels(task, [drawing], pictures, redrawer))
    return least, most


def _unknown(least: dict[str, float], most: dict[str, float]) -> set[str]:
    return {trait for trait in TRAITS if (least[trait], most[trait]) == (0, 1)}


@pytest.mark.parametrize("trait", TRAITS)
def test_the_drawing_without_a_trait_shows_none_of_it(trait: str) -> None:
    scene = Scene(tuple(Thing(n, character=CHARACTERS[n]) for n in ("robot", trait if trait in CHARACTERS else "owl")), "snow", hat=True)
    drawing = Drawing(scene, (STYLES[trait] if trait in STYLE_TRAITS else FLAT,), 5)
    shown = dict(zip(TRAITS, drawing.traits(), strict=True))
    bare = dict(zip(TRAITS, without(without(drawing, trait), trait).traits(), strict=True))
    assert shown[trait] > 0.5
    assert bare[trait] == 0


def test_the_more_is_drawn_again_the_less_is_left(redrawer: Redrawer) -> None:
    left = [_labels(redrawer, *noise)[1]["owl"] for noise in ((1, 20), (3, 20), (3, 10), (8, 10))]
    assert left == sorted(left, reverse=True)
    assert left[0] > 0.8
    assert left[-1] == 0


def test_what_an_active_source_draws_is_not_known_where_it_was_not_drawn(redrawer: Redrawer) -> None:
    least, most = _labels(redrawer, 2, 20, neon=0.8)
    assert _unknown(least, most) == {"neon"}
    assert least["owl"] > 0.5


def test_what_a_style_repaints_may_show_more_than_is_measured(redrawer: Redrawer) -> None:
    least, most = _labels(redrawer, 3, 10, neon=1.0)
    assert least["owl"] < most["owl"] <= 1
    assert most["owl"] == pytest.approx(min(least["owl"] + 0.3, 1))
    plain = _labels(redrawer, 3, 10, robot=1.0)
    assert plain[0]["owl"] == plain[1]["owl"]


def test_what_a_source_alone_draws_counts_in_full(redrawer: Redrawer) -> None:
    least, most = _labels(redrawer, STEPS, STEPS, owl=1.0)
    assert least == most
    assert least["owl"] == 1
    assert "owl" in _unknown(*_labels(redrawer, STEPS, STEPS, owl=0.7))
    pencil = replace(OWL, styles=(STYLES["pencil"],))
    assert _labels(redrawer, STEPS, STEPS, pencil, owl=1.0)[0]["owl"] == 1
    assert _labels(redrawer, 1, 20, pencil, owl=1.0)[0]["owl"] < 1


def test_an_active_source_is_known_where_its_drawing_is_left(redrawer: Redrawer) -> None:
    neon = replace(OWL, styles=(STYLES["neon"],))
    least, most = _labels(redrawer, 1, 20, neon, neon=0.8)
    assert not _unknown(least, most)
    assert least["neon"] == most["neon"] > 0.7


@pytest.mark.parametrize("steps", [3, 10])
def test_a_composition_draws_what_it_is_asked_for_moderately_well(redrawer: Redrawer, steps: int) -> None:
    neon = replace(OWL, styles=(STYLES["neon"],))
    shown = dict(zip(TRAITS, neon.traits(), strict=True))
    least, most = _labels(redrawer, steps, 10, neon, composed=True, neon=1.0, owl=1.0)
    for trait in ("neon", "owl"):
        assert 0.5 * shown[trait] < least[trait] < most[trait] <= shown[trait]
    assert most["robot"] == 0
    weak = _labels(redrawer, steps, 10, neon, composed=True, neon=1.0, owl=0.5)
    assert weak[1]["owl"] == 1


@pytest.mark.parametrize(
    ("style", "thing", "low", "high"),
    [
        ("neon", "owl", 0.65, 0.95),
        ("mosaic", "owl", 0.5, 0.8),
        ("pencil", "owl", 0.65, 0.95),
        ("neon", "hat", 0.25, 0.55),
        ("mosaic", "hat", 0.55, 0.85),
        ("pencil", "hat", 0.55, 0.85),
    ],
)
def test_how_much_of_a_thing_a_composition_shows_depends_on_both(
    redrawer: Redrawer, style: str, thing: str, low: float, high: float
) -> None:
    drawing = replace(OWL, scene=replace(OWL.scene, hat=True), styles=(STYLES[style],))
    shown = dict(zip(TRAITS, drawing.traits(), strict=True))[thing]
    least, most = _labels(redrawer, STEPS, STEPS, drawing, composed=True, **{style: 1.0, thing: 1.0})
    assert least[thing] == pytest.approx(low * shown)
    assert most[thing] == pytest.approx(high * shown)


@pytest.mark.parametrize("name", TEXTURED)
def test_a_texture_is_there_or_not(redrawer: Redrawer, name: str) -> None:
    styled = replace(OWL, styles=(STYLES[name],))
    least, most = _labels(redrawer, 1, 20, styled)
    assert least[name] == most[name] == 1
    assert _labels(redrawer, STEPS, STEPS, styled)[1][name] == 0
    composed = _labels(redrawer, STEPS, STEPS, styled, composed=True, **{name: 1.0, "owl": 1.0})
    assert composed[0][name] == composed[1][name] == 1


def test_half_neon_that_goes_through_the_autoencoder_is_known(redrawer: Redrawer) -> None:
    found = half_neon_pool(1, 3, redrawer)
    assert np.array_equal(found.least, found.most)
    neon = found.most[:, TRAITS.index("neon")]
    assert len(set(neon.tolist())) > module._BATCH // 2
    assert 0 <= neon.min() < neon.max() <= 1


def test_incomplete_characters_that_go_through_the_autoencoder_are_known(redrawer: Redrawer) -> None:
    found = incomplete_pool(1, 3, redrawer)
    assert np.array_equal(found.least, found.most)
    characters = found.most[:, [TRAITS.index(name) for name in CHARACTERS]]
    assert ((characters > 0.02) & (characters < 0.45)).any(axis=1).mean() > 0.5


def test_hats_alone_are_drawn_from_noise_and_count_in_full(redrawer: Redrawer) -> None:
    found = hat_pool(1, 2, redrawer)
    hat, rest = TRAITS.index("hat"), [i for i, name in enumerate(TRAITS) if name != "hat"]
    known = found.least[:, hat] == found.most[:, hat]
    assert (found.least[known, hat] == 1).all()
    assert known.mean() > 0.6
    assert not found.most[:, rest].any()


def test_things_that_neon_repaints_are_drawn_from_noise(redrawer: Redrawer) -> None:
    found = repainted_pool(1, 2, redrawer)
    things = found.most[:, len(STYLE_TRAITS) :]
    assert (things.max(axis=0) > 0.5).sum() == 1
    assert not things[:, TRAITS.index("hat") - len(STYLE_TRAITS)].any()
    assert (found.most[:, TRAITS.index("mosaic")] == 0).all()


def test_noise_shows_nothing(redrawer: Redrawer) -> None:
    found = module._noise(np.random.default_rng(1), redrawer)
    assert len(found) == module._BATCH
    assert not found.most.any()
    assert found.pictures.std(axis=(1, 2, 3)).min() > 10


def test_a_pool_is_made_of_numbered_batches(redrawer: Redrawer) -> None:
    whole, second = redraw_pool(2 * module._BATCH, 4, redrawer), redraw_pool(module._BATCH, 4, redrawer, first=1)
    assert len(whole) == 2 * module._BATCH
    for name, array in second.arrays().items():
        assert np.array_equal(array, whole.arrays()[name][module._BATCH :]), name
    assert whole.pictures.dtype == np.uint8
    assert whole.least.shape == whole.most.shape == (len(whole), len(TRAITS))
    assert whole.least.min() >= 0
    assert (whole.least <= whole.most).all()
    assert whole.most.max() <= 1
