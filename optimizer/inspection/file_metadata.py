"""Particulars: descriptive metadata of a file, with every untrusted string reduced to one short printable line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimizer.adapters.files.metadata_keys import AUTHOR, LICENCE, OUTPUT_NAME, TAGS, TITLE, metadata_value
from optimizer.adapters.files.trigger_words import Trigger, find_trigger
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
        trigger_origin: where a trigger that is a guess comes from; empty for one that the file states.
        tags: ModelSpec tags.
        words: most frequent words of the training captions (sd-scripts' ``ss_tag_frequency``).
    """

    trigger: str = ""
    title: str = ""
    output_name: str = ""
    author: str = ""
    licence: str = ""
    trigger_origin: str = ""
    tags: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def particulars(metadata: Mapping[str, str], trigger: str | None = None, file: Path | None = None) -> Particulars:
    """Returns the descriptive metadata of a header.

    Args:
        metadata: metadata strings (untrusted).
        trigger: trigger word known from another source; None takes it from the metadata, or from the model card beside the file.
        file: location of the file; None to leave out the model card.
    """
    found = find_trigger(metadata, file) if trigger is None else Trigger(trigger)
    return Particulars(
        trigger=line(found.text),
        trigger_origin=found.origin,
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
