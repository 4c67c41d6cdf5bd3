"""Heritage: licences, authors and tags that a merge inherits from the metadata of its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optimizer.adapters.files.metadata_keys import AUTHOR, LICENCE, TAGS, metadata_value
from optimizer.text import visible_line

_LONGEST, _MOST_TAGS = 200, 20
_NOT_STATED = "not stated"


@dataclass(frozen=True)
class Heritage:
    """Metadata that a merge inherits from its sources; every string is one line of bounded length.

    Attributes:
        licence: the common licence of all sources; a list by source if they differ or some state none; empty if no source states one.
        authors: distinct authors, in the sources' order.
        tags: distinct tags, in the sources' order.
    """

    licence: str = ""
    authors: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def heritage(sources: Sequence[tuple[str, Mapping[str, str]]]) -> Heritage:
    """Returns the metadata that a merge of the sources inherits.

    Args:
        sources: name and metadata of each source.
    """
    licences = {name: _short(metadata_value(metadata, LICENCE)) for name, metadata in sources}
    authors = dict.fromkeys(author for _, metadata in sources if (author := _short(metadata_value(metadata, AUTHOR))))
    tags = dict.fromkeys(tag for _, metadata in sources for text in metadata.get(TAGS, "").split(",") if (tag := _short(text)))
    return Heritage(_licence(licences), tuple(authors), tuple(tags)[:_MOST_TAGS])


def _licence(licences: Mapping[str, str]) -> str:
    if not any(licences.values()):
        return ""
    if len(set(licences.values())) == 1:
        return next(iter(licences.values()))
    return "; ".join(f"{name}: {licence or _NOT_STATED}" for name, licence in licences.items())


def _short(text: str) -> str:
    return visible_line(text)[:_LONGEST].strip()
