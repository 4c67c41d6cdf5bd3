"""Needs: the inputs of a merge method beside the recipe, and the refusal of methods whose inputs are not available."""

from __future__ import annotations

from optimizer.errors import RecipeError
from optimizer.merging.methods.method import Method, Need

AVAILABLE: frozenset[Need] = frozenset({"deltas"})
"""Inputs that merges and searches have."""


def check_needs(method: Method, *, where: str = "recipe: method") -> None:
    """Raises RecipeError if a method needs an input that is not available.

    Args:
        method: record of the method.
        where: field or option that names the method, for the error.
    """
    if method.needs not in AVAILABLE:
        raise RecipeError(
            f"the method {method.name!r} needs {method.needs} of the base model, which are not available here",
            where=where,
            remedy="choose a method that needs the sources alone, such as 'linear'",
        )
