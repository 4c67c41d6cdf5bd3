"""The base model family that the sources of one merge share."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.adapters.adapter import Adapter
from optimizer.errors import RecipeError


def common_base(adapters: Sequence[Adapter]) -> str:
    """Returns the base model family shared by all adapters; ``unknown`` is compatible with any family.

    Raises:
        RecipeError: the adapters were made for different families.
    """
    known = [(a.name, a.base) for a in adapters if a.base != "unknown"]
    if len({base for _, base in known}) > 1:
        listed = ", ".join(f"{name}: {base}" for name, base in known)
        raise RecipeError(
            f"the sources were trained on different base models ({listed})", where="sources", remedy="merge sources of one base model"
        )
    return known[0][1] if known else "unknown"
