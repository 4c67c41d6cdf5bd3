"""The rank of a merge for which none was asked: one rule for the search, for single merges and for whoever writes recipes."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.adapters import Adapter
from optimizer.merging.methods import METHODS


def default_rank(method: str, most: int | None) -> int | None:
    """The rank that a recipe gets where nothing else bounds its size.

    Results of methods that work on factors, or on the core between them, have no more than the sum of the sources' ranks by themselves, and
    stay what they are. Those of methods that work on every entry of ΔW have full rank, and are truncated to that sum.

    Args:
        method: name of a merge method.
        most: the sum of the sources' ranks, see ``sum_of_ranks``; None for full models, which have no ranks.

    Returns:
        The rank, or None for the method's own result.
    """
    return most if METHODS[method].cost == "entries" else None


def sum_of_ranks(adapters: Sequence[Adapter]) -> int:
    """The largest sum of the sources' ranks in a module."""
    paths = {path for adapter in adapters for path in adapter.modules}
    return max(sum(a.modules[path].rank for a in adapters if path in a.modules) for path in paths)
