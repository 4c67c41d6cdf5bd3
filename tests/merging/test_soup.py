"""The greedy soup against what it should pick."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from optimizer.adapters.adapter import Adapter
from optimizer.errors import RecipeError
from optimizer.merging import Recipe, greedy_soup, merge
from tests.merging.samples import PATHS, make_adapter, relative_error

TARGET, NOISE = make_adapter(1), [make_adapter(seed) for seed in (2, 3, 4)]


def towards(weight: float, noise: int) -> Adapter:
    """The target with some noise, as one epoch of a training has it."""
    return merge([TARGET, NOISE[noise]], Recipe(method="linear", weights=(1.0, weight)))


def nearness(sources: list[Adapter]) -> Callable[[Recipe], float]:
    def score(recipe: Recipe) -> float:
        merged = merge(sources, recipe)
        return -sum(relative_error(merged.modules[path].delta(), TARGET.modules[path].delta()) for path in PATHS)

    return score


def test_sources_that_help_are_mixed_in_and_others_are_not() -> None:
    """Two noisy copies of one target are better together; a third one, far off, would spoil them."""
    sources = [towards(3.0, 2), towards(0.3, 0), towards(0.4, 1)]
    soup = greedy_soup(sources, nearness(sources))
    assert soup.ingredients == (1, 2)
    assert soup.score > max(soup.alone)
    assert (soup.recipe.method, soup.recipe.weights) == ("model_soup", (0.0, 1.0, 1.0))
    merged = merge(sources, soup.recipe)
    for path in PATHS:
        mean = (sources[1].modules[path].delta() + sources[2].modules[path].delta()) / 2
        assert relative_error(merged.modules[path].delta(), mean) < 3e-6


def test_no_source_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^sources: no source given — give one or more sources of one concept"):
        greedy_soup([], lambda recipe: 0.0)
