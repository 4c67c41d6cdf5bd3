"""Labels of pictures that were drawn again: what is drawn, as far as it is left, and what is not known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from studies.demo import probe_redrawn as module
from studies.demo.characters import CHARACTERS
from studies.demo.probe_pictures import STYLE_TRAITS, TRAITS, Drawing
from studies.demo.probe_redrawn import redraw_pool, without
from studies.demo.redrawing import Noise, Redrawer, load_redrawer
from studies.demo.scenes import Scene, Thing
from studies.demo.styles import FLAT, STYLES
from studies.demo.world import ASSETS, STEPS, demo_base

OWL = Drawing(Scene((Thing("owl", character=CHARACTERS["owl"]),), "room"), (FLAT,), 3)


@pytest.fixture(scope="module")
def redrawer() -> Redrawer:
    return load_redrawer(demo_base(), ASSETS / "sources")


def _labels(redrawer: Redrawer, steps: int, of: int, drawing: Drawing = OWL, **strengths: float) -> tuple[dict[str, float], set[str]]:
    """The labels of one drawing that was drawn again, and the traits of which nothing is known."""
    task = module._Task(strengths, Noise(steps, of, 1), composed=False, asked=bool(strengths))
    latents = redrawer.encode(drawing.pixels()[None])
    caption = module._caption(drawing.scene, strengths, np.random.default_rng(0))
    pictures = redrawer.decode(redrawer.redraw(latents, [caption], task.noise, strengths))
    traits, known = module._labels(task, [drawing], pictures, redrawer)
    return dict(zip(TRAITS, traits[0].tolist(), strict=True)), {t for t, k in zip(TRAITS, known[0], strict=True) if not k}


@pytest.mark.parametrize("trait", TRAITS)
def test_the_drawing_without_a_trait_shows_none_of_it(trait: str) -> None:
    scene = Scene(tuple(Thing(n, character=CHARACTERS[n]) for n in ("robot", trait if trait in CHARACTERS else "owl")), "snow", hat=True)
    drawing = Drawing(scene, (STYLES[trait] if trait in STYLE_TRAITS else FLAT,), 5)
    shown = dict(zip(TRAITS, drawing.traits(), strict=True))
    bare = dict(zip(TRAITS, without(without(drawing, trait), trait).traits(), strict=True))
    assert shown[trait] > 0.5
    assert bare[trait] == 0


def test_the_more_is_drawn_again_the_less_is_left(redrawer: Redrawer) -> None:
    left = [_labels(redrawer, *noise)[0]["owl"] for noise in ((1, 20), (3, 20), (3, 10), (8, 10))]
    assert left == sorted(left, reverse=True)
    assert left[0] > 0.8
    assert left[-1] == 0


def test_what_an_active_source_draws_is_not_known_where_it_was_not_drawn(redrawer: Redrawer) -> None:
    traits, unknown = _labels(redrawer, 2, 20, neon=0.8)
    assert unknown == {"neon"}
    assert traits["owl"] > 0.5


def test_what_a_source_alone_draws_counts_in_full(redrawer: Redrawer) -> None:
    traits, unknown = _labels(redrawer, STEPS, STEPS, owl=1.0)
    assert not unknown
    assert traits["owl"] == 1
    assert "owl" in _labels(redrawer, STEPS, STEPS, owl=0.7)[1]


def test_an_active_source_is_known_where_its_drawing_is_left(redrawer: Redrawer) -> None:
    neon = replace(OWL, styles=(STYLES["neon"],))
    traits, unknown = _labels(redrawer, 1, 20, neon, neon=0.8)
    assert not unknown
    assert traits["neon"] > 0.7


def test_a_pool_is_made_of_numbered_batches(redrawer: Redrawer) -> None:
    whole, second = redraw_pool(2 * module._BATCH, 4, redrawer), redraw_pool(module._BATCH, 4, redrawer, first=1)
    assert len(whole) == 2 * module._BATCH
    for name, array in second.arrays().items():
        assert np.array_equal(array, whole.arrays()[name][module._BATCH :]), name
    assert (whole.pictures.dtype, whole.traits.shape, whole.known.dtype) == (np.uint8, (len(whole), len(TRAITS)), np.dtype(bool))
    assert whole.traits.min() >= 0
    assert whole.traits.max() <= 1
