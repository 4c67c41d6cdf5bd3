"""Needs: the inputs of a merge method beside the recipe, and the refusal of methods whose inputs are not available."""

from __future__ import annotations

from collections.abc import Container

from optimizer.errors import RecipeError
from optimizer.merging.methods.method import Method, Need

AVAILABLE: frozenset[Need] = frozenset({"deltas"})
"""Inputs that every merge and every search has."""

LIVE: frozenset[Need] = AVAILABLE | {"activations", "gradients"}
"""Inputs that there are beside a loaded base model."""


def check_needs(method: Method, *, where: str = "recipe: method", available: Container[Need] = AVAILABLE) -> None:
    """Raises RecipeError if a method needs an input that is not available.

    Args:
        method: record of the method.
        where: field or option that names the method, for the error.
        available: inputs that are available.
    """
    if method.needs not in available:
        solving = f"solve it first, by optimize merge --method {method.name} --base MODEL, or choose" if method.solved else "choose"
        raise RecipeError(
            f"the method {method.name!r} needs {method.needs} of the base model, which are not available here",
            where=where,
            remedy=f"{solving} a method that needs the sources alone, such as 'linear'",
        )
