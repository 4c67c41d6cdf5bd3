"""Particulars: what a file says about itself. Every string of a header is hostile: here it becomes one short printable line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optimizer.adapters.files.metadata_keys import AUTHOR, LICENCE, OUTPUT_NAME, TAGS, TITLE, TRIGGER, said
from optimizer.text import one_line, printable

LONGEST = 160
"""Characters of a text that are shown: two lines of a terminal."""

MOST_WORDS = 12
"""Tags and training words that are shown, the most frequent first."""

_LONGEST_WORD = 40


@dataclass(frozen=True)
class Particulars:
    """A file's own account; what it does not say is empty.

    Attributes:
        trigger, title, output_name, author, licence: one printable line of at most ``LONGEST`` characters.
        tags: ModelSpec's.
        words: those that its training captions used most (sd-scripts' ``ss_tag_frequency``).
    """

    trigger: str = ""
    title: str = ""
    output_name: str = ""
    author: str = ""
    licence: str = ""
    tags: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def particulars(metadata: Mapping[str, str], trigger: str | None = None) -> Particulars:
    """Read a header's metadata.

    Args:
        metadata: untrusted strings.
        trigger: what is known from elsewhere; None: what the metadata says.
    """
    return Particulars(
        trigger=line(said(metadata, TRIGGER) if trigger is None else trigger),
        title=line(said(metadata, TITLE)),
        output_name=line(said(metadata, OUTPUT_NAME)),
        author=line(said(metadata, AUTHOR)),
        licence=line(said(metadata, LICENCE)),
        tags=_words(metadata.get(TAGS, "")[: LONGEST * MOST_WORDS].split(",")),
        words=_words(_training_words(metadata.get("ss_tag_frequency", ""))),
    )


def line(text: str, longest: int = LONGEST) -> str:
    """The text as one printable line, cut where it is longer than that many characters."""
    shown = one_line(printable(text[: 4 * longest]))
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _words(found: list[str]) -> tuple[str, ...]:
    shown = dict.fromkeys(word for text in found if (word := line(text, _LONGEST_WORD)))
    return tuple(shown)[:MOST_WORDS]


def _training_words(text: str) -> list[str]:
    """The words of ``{"folder": {"word": count, …}, …}``, the most frequent first; none where it is anything else."""
    try:
        table: Any = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return []
    counts: Counter[str] = Counter()
    for folder in table.values() if isinstance(table, dict) else ():
        for word, number in folder.items() if isinstance(folder, dict) else ():
            if isinstance(number, int):
                counts[word] += number
    return [word for word, _ in counts.most_common(4 * MOST_WORDS)]
