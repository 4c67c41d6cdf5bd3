"""The prompts that routers are solved on: how many of each kind, and none that another kind shares."""

from __future__ import annotations

from collections import Counter

import pytest

from optimizer.calibration.prompts import MEASURED, TRAINED, prompts_to_solve_on
from optimizer.merging import Recipe
from optimizer.rendering import GENERAL, NOTHING, Subject

SUBJECTS = (Subject("hero", "character", "robo"), Subject("ink", "style", "inkstyle"))


def kinds(recipe: Recipe) -> Counter[int | None]:
    return Counter(prompt.source for prompt in prompts_to_solve_on(SUBJECTS, GENERAL, recipe).prompts)


@pytest.mark.parametrize(("method", "count"), [("distill", TRAINED), ("zip", TRAINED), ("ssr", MEASURED), ("iteris", MEASURED)])
def test_every_kind_has_as_many(method: str, count: int) -> None:
    assert kinds(Recipe(method=method, weights=(1, 1))) == {0: count, 1: count, None: count}


@pytest.mark.parametrize(("method", "count"), [("distill", TRAINED), ("ssr", MEASURED)])
def test_prompts_without_a_trigger_come_on_request(method: str, count: int) -> None:
    recipe = Recipe(method=method, weights=(1, 1), neutral_prompts=7)
    assert kinds(recipe) == {0: count, 1: count, None: count, NOTHING: 7}
    prompts = prompts_to_solve_on(SUBJECTS, GENERAL, recipe).prompts
    neutral = [prompt for prompt in prompts if prompt.source == NOTHING]
    assert not any(trigger in prompt.text for prompt in neutral for trigger in ("robo", "inkstyle"))
    assert not {prompt.seed for prompt in neutral} & {prompt.seed for prompt in prompts if prompt.source != NOTHING}
    other = prompts_to_solve_on(SUBJECTS, GENERAL, recipe.replaced(seed=1)).prompts
    assert not {prompt.seed for prompt in prompts} & {prompt.seed for prompt in other}
