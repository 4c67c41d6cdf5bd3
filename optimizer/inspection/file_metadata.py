"""Particulars: descriptive metadata of a file, with every untrusted string reduced to one short printable line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optimizer.adapters.files.metadata_keys import AUTHOR, LICENCE, OUTPUT_NAME, TAGS, TITLE, TRIGGER, metadata_value
from optimizer.text import one_line, printable

LONGEST = 160
"""Maximum number of characters shown of a text: two terminal lines."""

MOST_WORDS = 12
"""Maximum number of tags, and of training words, that are shown; the most frequent words first."""

_LONGEST_WORD = 40


@dataclass(frozen=True)
class Particulars:
    """Descriptive metadata of a file; fields that the metadata do not state are empty.

    Attributes:
        trigger, title, output_name, author, licence: one printable line of at most ``LONGEST`` characters.
        tags: ModelSpec tags.
        words: most frequent words of the training captions (sd-scripts' ``ss_tag_frequency``).
    """

    trigger: str = ""
    title: str = ""
    output_name: str = ""
    author: str = ""
    licence: str = ""
    tags: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def particulars(metadata: Mapping[str, str], trigger: str | None = None) -> Particulars:
    """Returns the descriptive metadata of a header.

    Args:
        metadata: metadata strings (untrusted).
        trigger: trigger word known from another source; None takes it from the metadata.
    """
    return Particulars(
        trigger=line(metadata_value(metadata, TRIGGER) if trigger is None else trigger),
        title=line(metadata_value(metadata, TITLE)),
        output_name=line(metadata_value(metadata, OUTPUT_NAME)),
        author=line(metadata_value(metadata, AUTHOR)),
        licence=line(metadata_value(metadata, LICENCE)),
        tags=_words(metadata.get(TAGS, "")[: LONGEST * MOST_WORDS].split(",")),
        words=_words(_training_words(metadata.get("ss_tag_frequency", ""))),
    )


def line(text: str, longest: int = LONGEST) -> str:
    """Returns the text as one printable line, truncated to ``longest`` characters."""
    shown = one_line(printable(text[: 4 * longest]))
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def _words(found: list[str]) -> tuple[str, ...]:
    shown = dict.fromkeys(word for text in found if (word := line(text, _LONGEST_WORD)))
    return tuple(shown)[:MOST_WORDS]


def _training_words(text: str) -> list[str]:
    """Returns the words of ``{"folder": {"word": count, …}, …}`` by descending frequency; empty for invalid JSON."""
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
