"""Formulas for full models that need no base: interpolations of two, and the difference of two added to a third."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from optimizer.errors import RecipeError

Combine = Callable[[Sequence[Tensor], float], Tensor]
"""Combines the models' tensors of one name, fp32, with a factor α."""


@dataclass(frozen=True)
class Formula:
    """Formula for merging full models.

    Attributes:
        models: number of models that the formula takes.
        text: one-line formula for display.
        combine: computes the merged tensor.
        share: maps α to the coefficient of the second model, or of the difference.
    """

    models: int
    text: str
    combine: Combine
    share: Callable[[float], float]


def weighted_sum(models: Sequence[Tensor], alpha: float) -> Tensor:
    """Returns (1 − α)A + αB."""
    first, second = models
    return first.lerp(second, alpha)


def sigmoid(models: Sequence[Tensor], alpha: float) -> Tensor:
    """Returns ``weighted_sum`` at α²(3 − 2α), flattest near 0 and 1, as in diffusers' community pipeline ``checkpoint_merger``."""
    return weighted_sum(models, _smooth(alpha))


def inv_sigmoid(models: Sequence[Tensor], alpha: float) -> Tensor:
    """Returns ``weighted_sum`` at ½ − sin(asin(1 − 2α)/3), the inverse of ``sigmoid``'s curve, steepest near 0 and 1.

    The formula is that of diffusers' community pipeline ``checkpoint_merger``.
    """
    return weighted_sum(models, _steep(alpha))


def _smooth(alpha: float) -> float:
    return alpha * alpha * (3 - 2 * alpha)


def _steep(alpha: float) -> float:
    return 0.5 - math.sin(math.asin(1 - 2 * alpha) / 3)


def _same(alpha: float) -> float:
    return alpha


def add_difference(models: Sequence[Tensor], alpha: float) -> Tensor:
    """Returns A + α(B − C), as in A1111's merger; diffusers' ``checkpoint_merger`` adds (1 − α)(B − C) to A under this name."""
    first, second, third = models
    return first + alpha * (second - third)


FORMULAS: dict[str, Formula] = {
    "weighted_sum": Formula(2, "(1 − α)A + αB", weighted_sum, _same),
    "sigmoid": Formula(2, "weighted_sum at α²(3 − 2α)", sigmoid, _smooth),
    "inv_sigmoid": Formula(2, "weighted_sum at ½ − sin(asin(1 − 2α)/3)", inv_sigmoid, _steep),
    "add_difference": Formula(3, "A + α(B − C)", add_difference, _same),
}
"""Formulas by name; a name that is also in ``METHODS`` has this meaning for models without a base."""


def check_formula(name: str, models: int, alpha: float) -> None:
    """Raises RecipeError if the number of models does not match the formula or α is out of range."""
    formula = FORMULAS[name]
    if models != formula.models:
        problem = f"{name} takes {formula.models} models ({formula.text}), {models} were given"
        raise RecipeError(problem, where="--sources", remedy="give as many, or choose another --method")
    if name != "add_difference" and not 0 <= alpha <= 1:
        raise RecipeError(f"α is {alpha:g}", where="--alpha", remedy="give a number from 0 to 1")
