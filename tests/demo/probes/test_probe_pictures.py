"""The labels of the probes' drawings: what is said to be shown is what is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.demo.drawing.characters import CHARACTERS, MISSING, random_character
from studies.demo.drawing.scenes import Scene, Thing, swapped
from studies.demo.drawing.styles import FLAT, STYLES, Style, random_style
from studies.demo.probes.drawings import (
    TRAITS,
    Drawing,
    any_scene,
    any_styles,
    draw_pool,
    half_neon,
    incomplete_scene,
    style_traits,
    two_styles,
)
from studies.demo.probes.likeness import likeness

BALL = Scene((Thing("ball", "red"),), "night", "left")


def test_traits_are_the_six_sources_and_the_hat() -> None:
    assert TRAITS == ("neon", "mosaic", "pencil", "robot", "octopus", "owl", "hat")


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([], set()),
        (["neon"], {"neon"}),
        (["neon", "mosaic"], {"neon", "mosaic"}),
        (["mosaic", "neon"], {"neon", "mosaic"}),
        (["neon", "pencil"], {"neon", "pencil"}),
        (["pencil", "neon"], {"pencil"}),
        (["pencil", "mosaic"], {"pencil", "mosaic"}),
    ],
)
def test_styles_that_can_be_seen(names: list[str], shown: set[str]) -> None:
    styles = [STYLES[n] for n in names] or [FLAT]
    assert {n for n, amount in style_traits(styles).items() if amount} == shown


def test_a_style_that_is_not_said_to_be_shown_changes_nothing() -> None:
    pencil, both = (Drawing(BALL, styles, 3).pixels() for styles in ((STYLES["pencil"],), (STYLES["pencil"], STYLES["neon"])))
    assert np.array_equal(pencil, both)


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_of_two_styles_every_named_one_is_shown(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for style in STYLES.values():
        pair = two_styles(style, rng)
        assert style in pair
        assert all(style_traits(pair)[n] == 1 for n, s in STYLES.items() if s in pair)


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_random_styles_and_characters_show_no_trait(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = Scene((Thing("creature", character=random_character(rng)),), "room")
    drawing = Drawing(scene, (random_style(rng),), seed)
    assert drawing.traits().max() < 0.5


@pytest.mark.parametrize("name", CHARACTERS)
def test_likeness_falls_with_every_replaced_feature(name: str) -> None:
    whole = CHARACTERS[name]
    one = replace(whole, eyes="three")
    two = replace(one, colour=(1, 2, 3))
    four = replace(two, belly="plain", limbs="sticks")
    amounts = [likeness(Thing("creature", character=c), name) for c in (whole, one, two, four)]
    assert amounts == sorted(amounts, reverse=True)
    assert (amounts[0], amounts[-1]) == (1, 0)
    assert 0.4 < amounts[1] < 0.7
    assert amounts[2] < 0.4
    recoloured = likeness(Thing("creature", character=replace(whole, colour=(1, 2, 3))), name)
    assert amounts[1] < recoloured < 0.9


@pytest.mark.parametrize("parts", [("eyes",), ("limbs",), ("eyes", "limbs")])
@pytest.mark.parametrize("name", CHARACTERS)
def test_a_character_without_the_parts_it_is_known_by_is_hardly_itself(name: str, parts: tuple[str, ...]) -> None:
    amount = likeness(Thing("creature", character=CHARACTERS[name].without(*parts)), name)
    if parts == ("limbs",) and name != "octopus":
        assert 0.5 < amount < 0.7
    else:
        assert 0.05 < amount < 0.4
    assert amount < 0.15 or len(parts) == 1


def test_missing_arms_and_eyes_are_not_drawn() -> None:
    octopus = CHARACTERS["octopus"]
    bare = octopus.without("eyes", "limbs")
    assert len(bare.parts()) == len(octopus.parts()) - 4 - 2 * 4  # two parts an eye, two strokes an arm
    lowest = [max(float(part.points[:, 1].max()) for part in c.parts()) for c in (octopus, bare)]
    assert lowest == pytest.approx([1.0, 0.95], abs=0.15)  # a dome without arms stands on the ground


def test_incomplete_characters_are_drawn_in_part() -> None:
    rng = np.random.default_rng(6)
    scenes = [incomplete_scene(rng) for _ in range(60)]
    assert all(any(MISSING in vars(t.character).values() for t in s.things if t.character) for s in scenes)
    octopuses = [likeness(t, "octopus") for s in scenes for t in s.things if t.character and t.character.limbs == MISSING]
    assert len(octopuses) > 10
    assert set(np.round(octopuses, 2)) == {0.11, 0.38}


@pytest.mark.parametrize(
    ("fill", "ink", "glow", "depth", "amount"),
    [
        ("dark", "white", 0, 0.86, 0.3),
        ("dark", "white", 0, 0.43, 0.15),
        ("flat", "bright", 0.85, 0, 0.2),
        ("flat", "bright", 0, 0, 0),
        ("dark", "bright", 0.85, 0.43, 0.6),
        ("dark", "bright", 0.85, 0.86, 1),
    ],
)
def test_dark_paint_and_glowing_outlines_are_a_part_of_neon(fill: str, ink: str, glow: float, depth: float, amount: float) -> None:
    assert style_traits([Style(fill, ink, glow=glow, depth=depth)]) == {"neon": pytest.approx(amount), "mosaic": 0, "pencil": 0}


def test_outlines_that_glow_at_night_are_more_of_neon_than_by_day() -> None:
    glowing = (Style("flat", "bright", glow=0.85),)
    day, night = (Drawing(replace(BALL, background=place), glowing, 0).traits()[0] for place in ("snow", "night"))
    assert 0 < day < 0.5 < night < 1
    assert Drawing(BALL, (FLAT,), 0).traits()[0] == 0


def test_half_neon_is_between_nothing_and_neon() -> None:
    rng = np.random.default_rng(4)
    amounts = [style_traits([half_neon(rng)])["neon"] for _ in range(200)]
    assert min(amounts) < 0.15
    assert max(amounts) > 0.8


@pytest.mark.parametrize("name", STYLES)
def test_styles_hide_a_part_of_things_but_not_of_themselves(name: str) -> None:
    scene = Scene((Thing("owl", character=CHARACTERS["owl"]),), "snow", hat=True)
    flat, styled = (Drawing(scene, (style,), 0) for style in (FLAT, STYLES[name]))
    seen = dict(zip(TRAITS, styled.traits(), strict=True))
    assert seen[name] == 1
    assert seen["owl"] == seen["hat"]
    assert 0.5 < seen["owl"] < 1
    assert dict(zip(TRAITS, styled.shown(), strict=True)) == dict(zip(TRAITS, flat.shown(), strict=True)) | {name: 1}


def test_two_characters_are_both_shown() -> None:
    scene = Scene((Thing("robot", character=CHARACTERS["robot"]), Thing("owl", character=CHARACTERS["owl"])), "snow", hat=True)
    assert dict(zip(TRAITS, Drawing(scene, (STYLES["neon"],), 0).shown(), strict=True)) == {
        "neon": 1,
        "mosaic": 0,
        "pencil": 0,
        "robot": 1,
        "octopus": 0,
        "owl": 1,
        "hat": 1,
    }


def test_colours_count_on_plain_paint_only() -> None:
    plain = {name: Drawing(BALL, (style,), 0).plain for name, style in {**STYLES, "flat": FLAT, "pastel": Style(fill="pastel")}.items()}
    assert plain == {"neon": False, "mosaic": True, "pencil": False, "flat": True, "pastel": False}


def test_labels_of_objects_leave_characters_out() -> None:
    scene = swapped(replace(BALL, things=(*BALL.things, Thing("cup", "blue"))), 0, Thing("robot", character=CHARACTERS["robot"]))
    drawing = Drawing(scene, (FLAT,), 0)
    assert (drawing.objects().sum(), drawing.colours().sum()) == (1, 1)


def test_pairs_that_fade_share_all_but_the_trait() -> None:
    pool = draw_pool(40, seed=2)
    fading = pool.blend > 0
    assert pool.pictures.shape == (40, 2, 64, 64, 3)
    assert fading.any()
    assert not fading.all()
    assert np.array_equal(pool.background[fading, 0], pool.background[fading, 1])
    assert (pool.traits[fading].max(axis=(1, 2)) > 0).all()
    assert np.mean(pool.traits[fading].max(axis=(1, 2)) == 1) > 0.7


def test_a_pool_is_the_same_for_the_same_seed() -> None:
    first, second, other = draw_pool(4, seed=3), draw_pool(4, seed=3), draw_pool(4, seed=4)
    assert np.array_equal(first.pictures, second.pictures)
    assert not np.array_equal(first.pictures, other.pictures)


def test_scenes_and_styles_of_every_sort_occur() -> None:
    rng = np.random.default_rng(0)
    scenes, styles = [any_scene(rng) for _ in range(200)], [any_styles(rng) for _ in range(200)]
    names = {t.name for s in scenes for t in s.things}
    assert {*CHARACTERS, "creature", "ball", "cup"} <= names
    assert {s.hat for s in scenes} == {True, False}
    assert {len(s) for s in styles} == {1, 2}
    assert {FLAT, *STYLES.values()} < {s for pair in styles for s in pair}
