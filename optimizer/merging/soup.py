"""Greedy soup: averages those sources of one concept that do not lower the score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optimizer.adapters.adapter import Adapter
from optimizer.errors import RecipeError
from optimizer.merging.recipe import Recipe


@dataclass(frozen=True)
class Soup:
    """Result of a greedy soup.

    Attributes:
        recipe: mean of the selected sources; the other sources have weight 0.
        score: score of the recipe.
        alone: score of each source alone, in order.
    """

    recipe: Recipe
    score: float
    alone: tuple[float, ...]

    @property
    def ingredients(self) -> tuple[int, ...]:
        """Indices of the selected sources."""
        return tuple(i for i, weight in enumerate(self.recipe.weights) if weight)


def greedy_soup(adapters: Sequence[Adapter], score: Callable[[Recipe], float]) -> Soup:
    """Returns the greedy soup of Model Soups (arXiv 2203.05482, recipe 1).

    Sources are tried in descending order of their scores; each one is kept if the mean does not score lower with it. The method is meant
    for sources of one concept, such as the epochs of one training run; with different concepts, a mean keeps an equal share of each.

    Args:
        adapters: candidate sources.
        score: returns the score of a merge, higher is better; called 2N − 1 times.

    Raises:
        RecipeError: no source is given.
    """
    if not adapters:
        raise RecipeError("no source given", where="sources", remedy="give one or more sources of one concept")

    def mean(chosen: Sequence[int]) -> Recipe:
        return Recipe(method="model_soup", weights=tuple(float(i in chosen) for i in range(len(adapters)))).bound_to(adapters)

    alone = tuple(score(mean([i])) for i in range(len(adapters)))
    first, *others = sorted(range(len(adapters)), key=lambda i: -alone[i])
    chosen, best = [first], alone[first]
    for index in others:
        found = score(mean([*chosen, index]))
        if found >= best:
            chosen, best = [*chosen, index], found
    return Soup(mean(chosen), best, alone)
