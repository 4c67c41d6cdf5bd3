"""Greedy soup: of several sources of one concept, mix in those that help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optimizer.adapters.adapter import Adapter
from optimizer.errors import RecipeError
from optimizer.merging.recipe import Recipe


@dataclass(frozen=True)
class Soup:
    """A greedy soup.

    Attributes:
        recipe: the mean of its ingredients; the other sources have the weight 0.
        score: of the recipe.
        alone: the score of each source alone.
    """

    recipe: Recipe
    score: float
    alone: tuple[float, ...]

    @property
    def ingredients(self) -> tuple[int, ...]:
        """Indices of the sources that are in it."""
        return tuple(i for i, weight in enumerate(self.recipe.weights) if weight)


def greedy_soup(adapters: Sequence[Adapter], score: Callable[[Recipe], float]) -> Soup:
    """The greedy soup of Model Soups (arXiv 2203.05482, recipe 1): from the best source on, each next one stays if it does no harm.

    It is made for sources of one concept, such as the epochs of one training; of different concepts a mean keeps the same share.

    Args:
        adapters: the sources.
        score: what a merge is worth, higher is better; called 2N − 1 times.

    Raises:
        RecipeError: there is no source.
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
