"""The mean of merges, and the greedy soup against what it should pick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.adapters.adapter import Adapter
from optimizer.errors import RecipeError
from optimizer.merging import Recipe, greedy_soup, mean_recipe, merge
from tests.merging.samples import PATHS, make_adapter, relative_error, uneven_sources

TARGET, NOISE = make_adapter(1), [make_adapter(seed) for seed in (2, 3, 4)]
weights = st.sampled_from([-1.3, -0.25, 0.0, 0.1, 0.7, 1.0])
blocks = st.dictionaries(st.sampled_from(["IN", "IN04", "MID", "OUT", "TE"]), st.sampled_from([0.0, 0.5, -1.0, 1.7]), max_size=3)
recipes = st.builds(
    lambda own, names: Recipe(method="linear", weights=own, blocks=names),
    st.tuples(weights, weights, weights),
    st.just(()) | st.tuples(blocks, blocks, blocks),
)


def change(adapters: list[Adapter], recipe: Recipe, path: str) -> torch.Tensor:
    """ΔW of one module beside a last source at weight 1, so that no module and no merge is ever empty."""
    merged = merge(adapters, recipe.replaced(weights=(*recipe.weights, 1.0), blocks=(*recipe.blocks, {}) if recipe.blocks else ()))
    return merged.modules[path].delta().double()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(several=st.lists(recipes, min_size=2, max_size=4))
def test_the_mean_recipe_merges_to_the_mean_of_the_merges(several: list[Recipe]) -> None:
    adapters = [*uneven_sources(), make_adapter(9)]
    mean = mean_recipe(several)
    for path in PATHS:
        wanted = torch.stack([change(adapters, recipe, path) for recipe in several]).mean(dim=0)
        size = sum(float(adapter.modules[path].delta().norm()) for adapter in adapters if path in adapter.modules)
        assert float((change(adapters, mean, path) - wanted).norm()) <= 2e-4 * size, path


def test_the_mean_of_one_is_itself_and_of_plain_weights_has_no_blocks() -> None:
    one = Recipe(method="linear", weights=(0.123456, 1.0), blocks=({"IN": 0.5}, {}))
    assert mean_recipe([one]) == one
    pair = [Recipe(method="svd", weights=w, rank=4, dtype="fp32") for w in ((1.0, 0.5), (0.5, 0.0))]
    assert mean_recipe(pair) == Recipe(method="svd", weights=(0.75, 0.25), rank=4, dtype="fp32")


def noisy(weight: float, noise: int) -> Recipe:
    """The target with some noise, as one epoch of a training has it."""
    return Recipe(method="linear", weights=(1.0, *(weight * (i == noise) for i in range(3))))


def nearness() -> Callable[[Recipe], float]:
    def score(recipe: Recipe) -> float:
        merged = merge([TARGET, *NOISE], recipe)
        return -sum(relative_error(merged.modules[path].delta(), TARGET.modules[path].delta()) for path in PATHS)

    return score


def test_merges_that_help_are_averaged_and_others_are_not() -> None:
    """Two noisy copies of one target are better together; a third one, far off, would spoil them."""
    tried = [noisy(0.3, 0), noisy(3.0, 2), noisy(0.4, 1)]
    soup = greedy_soup(tried, nearness())
    assert soup.chosen == (0, 2)
    assert soup.score > soup.first == nearness()(tried[0])
    assert (soup.recipe.method, soup.recipe.weights) == ("linear", (1.0, 0.15, 0.2, 0.0))


def test_a_merge_that_changes_nothing_in_the_score_is_kept_and_each_is_scored_once() -> None:
    seen: list[Recipe] = []

    def score(recipe: Recipe) -> float:
        seen.append(recipe)
        return 1.0

    soup = greedy_soup([noisy(0.3, i) for i in range(3)], score)
    assert soup.chosen == (0, 1, 2)
    assert len(seen) == 3
    assert seen[-1] == soup.recipe


BAD: list[tuple[list[dict[str, Any]], str]] = [
    ([], r"a soup is the mean of weighted sums — give one or more, such as linear merges"),
    ([{"method": "linear"}, {"method": "ties"}], r"a soup is the mean of weighted sums"),
    ([{"method": "model_soup"}], r"a soup is the mean of weighted sums"),
    ([{"method": "add_difference"}], r"a soup is the mean of weighted sums"),
    ([{"method": "routed", "calibration": "ab" * 32}], r"a soup is the mean of weighted sums"),
    ([{"method": "linear"}, {"method": "linear", "rank": 3}], r"the recipes differ in more than weights and block weights — give merges"),
    ([{"method": "linear", "sources": ("ab" * 32,)}, {"method": "linear"}], r"the recipes differ in more than weights"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_what_has_no_mean_is_refused(fields: list[dict[str, Any]], message: str) -> None:
    several = [Recipe(weights=(1.0,), **own) for own in fields]
    with pytest.raises(RecipeError, match=f"^recipes: {message}"):
        greedy_soup(several, lambda recipe: 0.0)


def test_merges_of_other_numbers_of_sources_have_no_mean() -> None:
    pair = [Recipe(method="linear", weights=(1.0,)), Recipe(method="linear", weights=(1.0, 0.5), blocks=({"IN": 0.5}, {}))]
    for several in (pair, pair[::-1]):
        with pytest.raises(RecipeError, match=r"^recipes: the recipes differ in more than weights"):
            mean_recipe(several)
