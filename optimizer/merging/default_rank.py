"""Default output rank of a merge: one rule for the search, for single merges and for written recipes."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.adapters import Adapter
from optimizer.merging.methods import METHODS


def default_rank(method: str, most: int | None) -> int | None:
    """Returns the rank of a recipe whose size is not limited otherwise.

    Methods that work on the factors, or on the core between them, return at most the sum of the ranks of the sources and of a correction;
    their result is kept as it is. Methods that work on every entry of ΔW return full rank; their result is truncated to that sum.

    Args:
        method: name of a merge method.
        most: sum of the sources' ranks, from ``sum_of_ranks``; None for full models, which have no ranks.

    Returns:
        The rank, or None to keep the method's exact result.
    """
    return most if METHODS[method].cost == "entries" else None


def sum_of_ranks(adapters: Sequence[Adapter]) -> int:
    """Returns the largest sum, over the modules, of the sources' ranks."""
    paths = {path for adapter in adapters for path in adapter.modules}
    return max(sum(a.modules[path].rank for a in adapters if path in a.modules) for path in paths)
