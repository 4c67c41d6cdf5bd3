"""Grammars: which template a name follows, by one look-up.

A template is a dotted name with ``#`` for a running number (``blocks.#.ff.net.0.proj``). Files also spell names flat, with an
underscore for every dot; since names hold underscores themselves, the way back is a look-up in a grammar, never a replacement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

_INDEX = re.compile(r"0|[1-9]\d{0,2}", re.ASCII)


class Grammar(Generic[T]):
    """Templates, each with a value.

    Args:
        templates: dotted template → value.
        separator: ``"."``, or ``"_"`` for the flat spelling.

    Example:
        >>> Grammar({"blocks.#.fc.0": "x"}, "_").find("blocks_12_fc_0")
        ('x', ('12',))
    """

    def __init__(self, templates: Mapping[str, T], separator: str) -> None:
        self._separator = separator
        self._entries: dict[str, list[tuple[tuple[str, ...], T]]] = {}
        for template, value in templates.items():
            key, numbers = self._taken_apart(template.replace(".", separator))
            self._entries.setdefault(key, []).append((numbers, value))

    def find(self, name: str) -> tuple[T, tuple[str, ...]] | None:
        """The value of the template that the name follows, and the running numbers in it; None where it follows none."""
        key, numbers = self._taken_apart(name)
        for wanted, value in self._entries.get(key, ()):
            if all(_INDEX.fullmatch(number) if want == "#" else number == want for want, number in zip(wanted, numbers, strict=True)):
                return value, tuple(number for want, number in zip(wanted, numbers, strict=True) if want == "#")
        return None

    def _taken_apart(self, name: str) -> tuple[str, tuple[str, ...]]:
        """The name with ``#`` for every number that stands between separators, and these numbers."""
        pieces = name.split(self._separator)
        numbers = tuple(piece for piece in pieces if piece == "#" or piece.isdecimal())
        return self._separator.join("#" if piece == "#" or piece.isdecimal() else piece for piece in pieces), numbers


def filled(template: str, indices: Sequence[str]) -> str:
    """The template with its running numbers."""
    pieces = template.split("#")
    return "".join(piece + index for piece, index in zip(pieces, [*indices, ""], strict=True))
