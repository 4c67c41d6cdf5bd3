"""What the router of a recipe depends on: the part of the recipe that is solved, apart from how its result is weighed and written."""

from __future__ import annotations

from typing import Any

from optimizer.merging.recipe import Recipe

_APPLIED = ("truncation",)  # says how a rank is reached; the rank itself counts where the router has it already


def solved_from(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields of a recipe that its router depends on, JSON-serialisable.

    Weights, block weights and dtype are applied to the router. So is a rank, unless the router was truncated to it.

    Args:
        recipe: recipe of a method that is solved on the live model.
    """
    own = {p.name: getattr(recipe, p.name) for p in recipe.method_record.parameters if p.name not in _APPLIED}
    cut = recipe.rank if isinstance(recipe.rank, int) and recipe.truncation == "outputs" else None
    return {"method": recipe.method, "sources": list(recipe.sources), "seed": recipe.seed, "rank": cut, **own}
