"""The groups of blocks that have weights of their own in a search."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from optimizer.errors import UsageError
from optimizer.merging import BlockMap
from optimizer.search.config.search import AUTO, BLOCKS, NONE

# With fewer trials per dimension a search over block weights fits noise.
_TRIALS_PER_DIMENSION = 5

Groups = tuple[tuple[str, ...], ...]
"""Labels of the groups of each source, in network order."""


def block_groups(
    blocks: BlockMap, present: Sequence[AbstractSet[str | None]], budget: int, asked: Sequence[str] = (AUTO,), fixed: Sequence[bool] = ()
) -> Groups:
    """Returns per source the block groups that get their own weight, among those that it changes.

    Args:
        blocks: block map of the sources' family.
        present: groups that each source changes.
        budget: number of trials beyond the baselines; with ``auto`` it limits the number of groups.
        asked: ``auto``, ``none``, or groups for all sources, in any case of letters.
        fixed: whether each source has a fixed weight, so that it gets no groups with ``auto``; empty if none has.

    Raises:
        UsageError: there is no such group, or no source changes it.
    """
    words = [word.lower() for word in asked]
    if words == [NONE]:
        return ((),) * len(present)
    if words != [AUTO]:
        labels = _named(asked, blocks, present)
        return tuple(tuple(label for label in labels if label in own) for own in present)
    free = [not fixed[i] if fixed else True for i in range(len(present))]
    count = sum(free)
    allowed = max(0, budget // _TRIALS_PER_DIMENSION - count)
    per_source = min(len(blocks.groups), allowed // count) if count else 0
    chosen = [[label for label in blocks.groups if label in own][: per_source * moves] for own, moves in zip(present, free, strict=True)]
    return tuple(tuple(sorted(few, key=blocks.position)) for few in chosen)


def _named(asked: Sequence[str], blocks: BlockMap, present: Sequence[AbstractSet[str | None]]) -> list[str]:
    """Returns the labels of the groups that the user names, in network order."""
    ordered = sorted(blocks.groups, key=blocks.position)
    known = {label.lower(): label for label in ordered}
    if unknown := next((word for word in asked if word.lower() not in known), None):
        remedy = f"choose from {', '.join(ordered)}, or give {AUTO} or {NONE}"
        raise UsageError(f"there is no group of blocks {unknown!r} in this family of models", where=BLOCKS, remedy=remedy)
    chosen = {known[word.lower()] for word in asked}
    if idle := next((label for label in ordered if label in chosen and not any(label in own for own in present)), None):
        changed = [label for label in ordered if any(label in own for own in present)]
        remedy = f"choose from {', '.join(changed)}, or give {AUTO} or {NONE}"
        raise UsageError(f"no source changes blocks of {idle}", where=BLOCKS, remedy=remedy)
    return [label for label in ordered if label in chosen]
