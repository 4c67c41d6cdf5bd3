"""Prompt sets: who is asked for, in which words, with which seeds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.rendering import GENERAL, NOTHING, PromptSet, Subject, Vocabulary, compose, without_triggers

STYLE = Subject("ink", "style", "inkstyle")
ALWAYS_ON = Subject("neon", "style", "")
HERO, VILLAIN = Subject("hero", "character", "robo"), Subject("villain", "character", "ghost")
HAT = Subject("hat", "concept", "red hat")
WORDS = Vocabulary(subjects=("a cube", "a ball"), settings=("left, night", "right, day"), wide_settings=("night", "day"))


def texts(prompts: PromptSet, source: int | None) -> set[str]:
    return {prompts.prompts[i].text for i in prompts.indices(source)}


def test_own_prompts_ask_for_their_source_only() -> None:
    found = compose([STYLE, HERO, HAT], WORDS, own=4, joint=0, seed=0)
    assert texts(found, 0) == {f"{thing}, {place}, inkstyle" for thing in WORDS.subjects for place in WORDS.settings}
    assert texts(found, 1) == {"robo, left, night", "robo, right, day"}
    assert texts(found, 2) == {f"{thing}, {place}, red hat" for thing in WORDS.subjects for place in WORDS.settings}


def test_joint_prompts_ask_for_all() -> None:
    found = compose([STYLE, HERO, HAT], WORDS, own=0, joint=4, seed=0)
    assert texts(found, None) == {"robo, left, night, red hat, inkstyle", "robo, right, day, red hat, inkstyle"}


def test_a_source_without_trigger_is_not_named() -> None:
    found = compose([ALWAYS_ON, HERO], WORDS, own=4, joint=2, seed=0)
    assert texts(found, 0) == {f"{thing}, {place}" for thing in WORDS.subjects for place in WORDS.settings}
    assert texts(found, None) == {"robo, left, night", "robo, right, day"}


def test_prompts_without_triggers_ask_for_nothing() -> None:
    found = without_triggers(WORDS, 6, seed=3)
    assert {prompt.text for prompt in found} == {f"{thing}, {place}" for thing in WORDS.subjects for place in WORDS.settings}
    assert {prompt.source for prompt in found} == {NOTHING}
    assert len({prompt.noise_seed for prompt in found}) == 6
    assert without_triggers(WORDS, 6, seed=3) == found
    assert not {prompt.seed for prompt in found} & {prompt.seed for prompt in without_triggers(WORDS, 6, seed=4)}


def test_two_characters_stand_in_wide_settings() -> None:
    found = compose([HERO, VILLAIN, ALWAYS_ON], WORDS, own=2, joint=2, seed=0)
    assert texts(found, 0) == {"robo, left, night", "robo, right, day"}
    assert texts(found, None) == {"robo and ghost, night", "robo and ghost, day"}
    narrow = Vocabulary(WORDS.subjects, WORDS.settings)
    assert texts(compose([HERO, VILLAIN], narrow, own=0, joint=2, seed=0), None) == {
        "robo and ghost, left, night",
        "robo and ghost, right, day",
    }


def test_given_prompts_replace_composed_ones() -> None:
    mine = Subject("hero", "character", "robo", prompts=("robo on a horse", "portrait of robo"))
    found = compose([mine, STYLE], WORDS, own=3, joint=2, seed=0)
    assert texts(found, 0) == {"robo on a horse", "portrait of robo"}
    assert texts(found, None) == {"robo, left, night, inkstyle", "robo, right, day, inkstyle"}
    assert all(text.endswith("inkstyle") for text in texts(found, 1))


def test_given_joint_prompts_replace_composed_ones() -> None:
    given = Vocabulary(WORDS.subjects, WORDS.settings, joint=("robo wears a hat, inkstyle", "inkstyle, robo asleep"))
    found = compose([STYLE, HERO], given, own=2, joint=3, seed=0)
    assert texts(found, None) == {"robo wears a hat, inkstyle", "inkstyle, robo asleep"}
    assert texts(found, 1) == {"robo, left, night", "robo, right, day"}


@pytest.mark.parametrize(
    "subjects", [[STYLE, HERO], [HAT, HERO], [HERO, VILLAIN], [STYLE, HAT], [STYLE, HERO, HAT], [HERO, VILLAIN, STYLE]]
)
def test_the_general_words_give_every_picture_of_a_usual_run_a_text_of_its_own(subjects: list[Subject]) -> None:
    """4 own and 8 joint prompts in the search, 8 of each kind in the confirmation."""
    seen = compose(subjects, GENERAL, own=4, joint=8, seed=0)
    unseen = compose(subjects, GENERAL, own=8, joint=8, seed=1_000_003, seen=seen)
    together = [p.text for prompts in (seen, unseen) for p in prompts.prompts]
    assert len(set(together)) == len(together)


def test_the_general_words_are_diverse() -> None:
    for words in (GENERAL.subjects, GENERAL.settings, GENERAL.wide_settings):
        assert len(set(words)) == len(words) >= 16
    assert {"a group of friends talking", "a hand holding an apple", "a mountain"} <= set(GENERAL.subjects)
    assert {"close-up, blurred background", "seen from far away in a wide landscape", "seen from behind"} <= set(GENERAL.settings)
    assert {"on a city street at night", "in a crowd of people", "in front of a plain white wall"} <= set(GENERAL.settings)
    assert "close-up, blurred background" not in GENERAL.wide_settings


def test_sources_come_in_order_and_joint_prompts_last() -> None:
    found = compose([STYLE, HERO], GENERAL, own=3, joint=2, seed=5)
    assert [p.source for p in found.prompts] == [0, 0, 0, 1, 1, 1, None, None]
    assert (found.indices(0), found.indices(1), found.indices(None)) == ([0, 1, 2], [3, 4, 5], [6, 7])
    assert len(found) == 8


def test_no_text_comes_again_before_every_other_came() -> None:
    words = Vocabulary(GENERAL.subjects[:6], GENERAL.settings[:6])
    found = [p.text for p in compose([STYLE], words, own=72, joint=0, seed=1).prompts]
    assert len(set(found[:36])) == 36
    assert found[36:] == found[:36]


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_the_same_seed_gives_the_same_set(seed: int) -> None:
    first, second = (compose([STYLE, HERO], GENERAL, own=4, joint=4, seed=seed) for _ in range(2))
    assert first == second
    assert [p.text for p in first.prompts] != [p.text for p in compose([STYLE, HERO], GENERAL, own=4, joint=4, seed=seed + 1).prompts]


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(1, 12), st.integers(0, 12))
def test_seeds_differ_within_a_set_and_between_sets(first: int, second: int, own: int, joint: int) -> None:
    sets = [compose([STYLE, HERO], GENERAL, own=own, joint=joint, seed=seed) for seed in {first, second}]
    seeds = [prompt.seed for found in sets for prompt in found.prompts]
    assert len(set(seeds)) == len(seeds)
    noises = {prompt.noise_seed for found in sets for prompt in found.prompts}
    assert len(noises) == len(seeds)


def test_texts_that_were_seen_come_last() -> None:
    words = Vocabulary(subjects=("a ball",), settings=("here", "there", "nowhere"))
    subject = Subject("hero", "character", "hero")
    first = compose([subject], words, own=2, joint=0, seed=0)
    second = compose([subject], words, own=2, joint=0, seed=1, seen=first)
    known = {p.text for p in first.prompts}
    assert [p.text in known for p in second.prompts] == [False, True]
