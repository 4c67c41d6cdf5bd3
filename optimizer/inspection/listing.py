"""A listing: one row a file of a directory, read one after another: only the reference stays in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimizer.inspection.facts import identity_facts, left_out_facts
from optimizer.inspection.file_metadata import particulars
from optimizer.inspection.gather import Found, LeftOut, Reading, adapter_files, fitting, load, read


@dataclass(frozen=True)
class Row:
    """One file.

    Attributes:
        path: the file.
        facts: see ``row_facts``; None where it cannot be read.
        left_out: why it does not fit the reference; None where it does.
    """

    path: Path
    facts: dict[str, Any] | None
    left_out: LeftOut | None


@dataclass(frozen=True)
class Listing:
    """The files of a directory by name, and the name of the adapter that they are to fit; empty where no file can be read."""

    directory: Path
    reference: str
    rows: tuple[Row, ...]

    def shown(self, everything: bool) -> list[Row]:
        """The rows that fit, or all of them."""
        return [row for row in self.rows if everything or row.left_out is None]

    def hidden(self, everything: bool) -> list[LeftOut]:
        """Why the others are not among these; unreadable files count as others even there, for they have no facts."""
        return [row.left_out for row in self.rows if row.left_out and not (everything and row.facts)]


def listing(directory: Path, like: str | None, reading: Reading) -> Listing:
    """Read a directory.

    Args:
        directory: where the files are; folders in it are not searched.
        like: the file or demo source that the others must fit; None for the first that can be read.
        reading: how.

    Raises:
        AdapterError: the file to compare with cannot be used.
        UsageError: there is no directory, no file in it, or no such demo source.
    """
    reference = None if like is None else load(like, reading).adapter
    rows = []
    for path in adapter_files(directory):
        found = read(path, reading)
        if isinstance(found, Found):
            reference = reference or found.adapter
            rows.append(Row(path, row_facts(found), fitting(found, reference)))
        else:
            rows.append(Row(path, None, found))
    return Listing(directory, reference.name if reference else "", tuple(rows))


def listing_facts(found: Listing, everything: bool) -> dict[str, Any]:
    """Everything that ``ls`` tells.

    - ``directory``; ``reference``: name of the file that the others fit, or null
    - ``files``: those that fit, with ``everything`` all that can be read; see ``row_facts``, and ``reason``: why one does not fit, or null
    - ``left_out``: the others; see ``facts.left_out_facts``
    """
    shown = [row for row in found.shown(everything) if row.facts]
    files = [(row.facts or {}) | {"reason": row.left_out.reason if row.left_out else None} for row in shown]
    return {
        "directory": str(found.directory),
        "reference": found.reference or None,
        "files": files,
        "left_out": left_out_facts(found.hidden(everything)),
    }


def row_facts(found: Found) -> dict[str, Any]:
    """One file: what ``facts.identity_facts`` tells, ``modules`` (their number), ``ranks`` (least and greatest), ``trigger``."""
    ranks = [factors.rank for factors in found.adapter.modules.values()]
    more = {"modules": len(ranks), "ranks": [min(ranks), max(ranks)]}
    return identity_facts(found) | more | {"trigger": particulars(found.adapter.metadata, found.trigger).trigger}
