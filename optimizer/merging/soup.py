"""Greedy soup: averages those merges that do not lower the score together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optimizer.errors import RecipeError
from optimizer.merging.blocks.maps import block_map, family_of
from optimizer.merging.methods.weighted_sum import weighted_sum
from optimizer.merging.recipe import Recipe

_DIGITS = 4


@dataclass(frozen=True)
class Soup:
    """Result of a greedy soup.

    Attributes:
        recipe: mean of the selected merges.
        score: score of the mean.
        first: score of the first merge alone.
        chosen: indices of the selected merges, in the order in which they were tried; the first is always selected.
    """

    recipe: Recipe
    score: float
    first: float
    chosen: tuple[int, ...]


def greedy_soup(recipes: Sequence[Recipe], score: Callable[[Recipe], float], base: str = "unknown") -> Soup:
    """Returns the greedy soup of Model Soups (arXiv 2203.05482, recipe 1), of merges instead of trained models.

    Each merge is kept if the mean of those kept so far does not score lower with it.

    Args:
        recipes: weighted sums of the same sources, best first.
        score: returns the score of a merge, higher is better; called once a recipe.
        base: base model family that the block weights belong to.

    Raises:
        RecipeError: no recipe is given, or they differ in more than weights and block weights.
    """
    mean = mean_recipe(recipes[:1], base)
    chosen, first = [0], score(mean)
    best = first
    for index in range(1, len(recipes)):
        with_it = mean_recipe([recipes[i] for i in (*chosen, index)], base)
        if (found := score(with_it)) >= best:
            chosen, best, mean = [*chosen, index], found, with_it
    return Soup(mean, best, first, tuple(chosen))


def mean_recipe(recipes: Sequence[Recipe], base: str = "unknown") -> Recipe:
    """Returns the recipe whose ΔW is the mean of the recipes' ΔW, with weights and block weights in steps of 10⁻⁴.

    Raises:
        RecipeError: no recipe is given, one is no weighted sum, or they differ in more than weights and block weights.
    """
    if not recipes or not all(map(is_weighted_sum, recipes)):
        raise RecipeError("a soup is the mean of weighted sums", where="recipes", remedy="give one or more, such as linear merges")
    first = recipes[0]
    alike = all(recipe.replaced(weights=first.weights, blocks=first.blocks) == first for recipe in recipes)
    if not alike or len({len(recipe.weights) for recipe in recipes}) > 1:
        remedy = "give merges of the same sources, with the same method, rank and dtype"
        raise RecipeError("the recipes differ in more than weights and block weights", where="recipes", remedy=remedy)
    if len(recipes) == 1:
        return first
    names = block_map(base).names if any(recipe.blocks for recipe in recipes) else ()
    weights, blocks = zip(*(_mean_source(recipes, i, names) for i in range(len(first.weights))), strict=True)
    return first.replaced(weights=weights, blocks=blocks)


def _mean_source(recipes: Sequence[Recipe], source: int, names: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Returns the mean weight of a source, and the factors on it that give the mean weight in each block."""
    count = len(recipes)
    inside = {name: sum(_weight_in(recipe, source, name) for recipe in recipes) / count for name in names}
    weight = round(sum(recipe.weights[source] for recipe in recipes) / count, _DIGITS)
    if not weight and any(inside.values()):
        weight = 1.0  # weights that cancel out, with block weights that do not
    factors = {name: round(mean / weight, _DIGITS) for name, mean in inside.items()} if weight else {}
    return weight, {name: factor for name, factor in factors.items() if factor != 1}


def is_weighted_sum(recipe: Recipe) -> bool:
    """Returns whether the recipe's merge is Σ wᵢΔWᵢ, at any rank, so that the mean of such merges is one again."""
    method = recipe.method_record
    return method.function is weighted_sum and not method.signs and not method.calibrated


def _weight_in(recipe: Recipe, source: int, block: str) -> float:
    """Returns the weight of a source in a block."""
    named = recipe.blocks[source] if recipe.blocks else {}
    return recipe.weights[source] * named.get(block, named.get(family_of(block), 1.0))
