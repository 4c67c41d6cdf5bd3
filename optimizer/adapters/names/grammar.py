"""Grammars: find the template that matches a name by one dictionary look-up.

A template is a dotted name with ``#`` for an index (``blocks.#.ff.net.0.proj``). Some dialects write flattened names, with an
underscore for every dot. Since names also contain underscores, flattening is inverted by a look-up in a grammar, not by replacement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

_INDEX = re.compile(r"0|[1-9]\d{0,2}", re.ASCII)


class Grammar(Generic[T]):
    """Mapping from name templates to values.

    Args:
        templates: dotted template → value.
        separator: ``"."``, or ``"_"`` for flattened names.

    Example:
        >>> Grammar({"blocks.#.fc.0": "x"}, "_").find("blocks_12_fc_0")
        ('x', ('12',))
    """

    def __init__(self, templates: Mapping[str, T], separator: str) -> None:
        self._separator = separator
        self._entries: dict[str, list[tuple[tuple[str, ...], T]]] = {}
        for template, value in templates.items():
            key, numbers = self._split(template.replace(".", separator))
            self._entries.setdefault(key, []).append((numbers, value))

    def find(self, name: str) -> tuple[T, tuple[str, ...]] | None:
        """Returns the value of the template that matches the name and the indices in the name; None if no template matches."""
        key, numbers = self._split(name)
        for wanted, value in self._entries.get(key, ()):
            if all(_INDEX.fullmatch(number) if want == "#" else number == want for want, number in zip(wanted, numbers, strict=True)):
                return value, tuple(number for want, number in zip(wanted, numbers, strict=True) if want == "#")
        return None

    def _split(self, name: str) -> tuple[str, tuple[str, ...]]:
        """Returns the name with ``#`` for every number between separators, and these numbers."""
        pieces = name.split(self._separator)
        numbers = tuple(piece for piece in pieces if piece == "#" or piece.isdecimal())
        return self._separator.join("#" if piece == "#" or piece.isdecimal() else piece for piece in pieces), numbers


def fill(template: str, indices: Sequence[str]) -> str:
    """Returns the template with every ``#`` replaced by its index."""
    pieces = template.split("#")
    return "".join(piece + index for piece, index in zip(pieces, [*indices, ""], strict=True))
