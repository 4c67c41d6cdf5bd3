"""Text from strangers' files, made harmless."""

from __future__ import annotations

import unicodedata


def one_line(text: str) -> str:
    """The text without control, format and other invisible characters, runs of white space as one space."""
    visible = "".join(" " if character.isspace() else character for character in text)
    return " ".join("".join(c for c in visible if unicodedata.category(c)[0] != "C").split())
