"""Sanitises text from libraries and untrusted files for messages: one line, without terminal control characters."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Returns the text with line ends and tabs replaced by spaces and every other unprintable character replaced by its escape."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: object) -> str:
    """Returns the text, or an error's message, with every run of white space replaced by one space."""
    return " ".join(str(text).split())


def visible_line(text: str) -> str:
    """Returns the text on one line without control, format and other invisible characters."""
    visible = "".join(" " if character.isspace() else character for character in text)
    return one_line("".join(c for c in visible if unicodedata.category(c)[0] != "C"))


def first_sentence(error: Exception) -> str:
    """Returns the first sentence of a library's error message."""
    if "Cannot copy out of meta tensor" in str(error):
        return "weights are missing in it"  # diffusers leaves missing weights on the meta device, then moves them
    if isinstance(error, KeyError):
        return f"{error} is missing in it"
    return one_line(error).split(". ")[0].rstrip(".") or type(error).__name__
