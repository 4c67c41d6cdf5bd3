"""Text of libraries and of strangers' files, fit to stand in a message: in one line, with nothing in it that steers a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """The text with line ends and tabs as spaces and every other character that cannot be printed as its escape."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else c.encode("unicode_escape").decode() for c in text)


def one_line(text: object) -> str:
    """The text, or an error's message, with every run of white space as one space."""
    return " ".join(str(text).split())


def visible_line(text: str) -> str:
    """The text in one line without control, format and other invisible characters."""
    visible = "".join(" " if character.isspace() else character for character in text)
    return one_line("".join(c for c in visible if unicodedata.category(c)[0] != "C"))


def first_sentence(error: Exception) -> str:
    """The first sentence of a library's message."""
    if "Cannot copy out of meta tensor" in str(error):
        return "weights are missing in it"  # diffusers leaves those that a single file lacks without storage, and then moves them
    if isinstance(error, KeyError):
        return f"{error} is missing in it"
    return one_line(error).split(". ")[0].rstrip(".") or type(error).__name__
