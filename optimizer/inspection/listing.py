"""Listing: one row per file of a directory. Files are read one at a time; only the reference stays in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimizer.inspection.facts import identity_facts, left_out_facts
from optimizer.inspection.file_metadata import particulars
from optimizer.inspection.gather import Found, LeftOut, Reading, adapter_files, fitting, load, read


@dataclass(frozen=True)
class Row:
    """One file of a listing.

    Attributes:
        path: path of the file.
        facts: result of ``row_facts``; None if the file cannot be read.
        left_out: reason why the file is incompatible with the reference or unreadable; None if it is compatible.
    """

    path: Path
    facts: dict[str, Any] | None
    left_out: LeftOut | None


@dataclass(frozen=True)
class Listing:
    """The files of a directory by name, and the name of the reference adapter; empty if no file can be read."""

    directory: Path
    reference: str
    rows: tuple[Row, ...]

    def shown(self, everything: bool) -> list[Row]:
        """Returns the compatible rows, or all rows if ``everything``."""
        return [row for row in self.rows if everything or row.left_out is None]

    def hidden(self, everything: bool) -> list[LeftOut]:
        """Returns the reasons for the rows that are not shown; with ``everything``, only for unreadable files."""
        return [row.left_out for row in self.rows if row.left_out and not (everything and row.facts)]


def listing(directory: Path, like: str | None, reading: Reading) -> Listing:
    """Reads a directory.

    Args:
        directory: directory of the files; subfolders are not searched.
        like: reference file or demo source; None takes the first file that can be read.
        reading: options for reading files.

    Raises:
        AdapterError: the reference file cannot be used.
        UsageError: the directory or the demo source does not exist, or the directory holds no file.
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
    """Returns the complete output of ``ls``.

    - ``directory``; ``reference``: name of the reference adapter, or null
    - ``files``: ``row_facts`` of the compatible files, with ``everything`` of all readable files; ``reason``: why a file is
      incompatible, or null
    - ``left_out``: ``facts.left_out_facts`` of the other files
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
    """Returns the facts of one file: ``facts.identity_facts``, ``modules`` (number), ``ranks`` (minimum and maximum), ``trigger``."""
    ranks = [factors.rank for factors in found.adapter.modules.values()]
    more = {"modules": len(ranks), "ranks": [min(ranks), max(ranks)]}
    return identity_facts(found) | more | {"trigger": particulars(found.adapter.metadata, found.trigger, found.path).trigger}
