r"""Emphasis: the brackets with which people weigh the words of a prompt, as A1111's web UI reads them.

``(word)`` counts 1.1 times, ``((word))`` 1.21 times, ``(word:1.3)`` 1.3 times, ``[word]`` 1/1.1 times; nested factors multiply. A bracket
that is never closed holds to the end, one that was never opened is text. ``\(``, ``\)``, ``\[``, ``\]`` and, in a text with brackets,
``\\`` are the characters themselves. ``BREAK`` as a word ends a chunk. Grammar: ``parse_prompt_attention`` of A1111's
stable-diffusion-webui; unlike there, ``BREAK`` is one inside of brackets too, a number that is none is text, and a backslash before
anything else stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

_STRONGER = 1.1
_TOKEN = re.compile(
    r"""\\(?P<escaped>[\\()\[\]])
    | :\s*(?P<weight>[+-]?(?:\d{1,6}(?:\.\d*)?|\.\d+))\s*(?P<close>\))
    | (?P<bracket>[()\[\]])
    | (?P<text>[^\\()\[\]:]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


@dataclass(frozen=True)
class Span:
    """Words of one weight; 1 is what they count without brackets."""

    text: str
    weight: float


@dataclass(frozen=True)
class Reading:
    """A prompt as it is meant.

    Attributes:
        parts: what stands between one ``BREAK`` and the next; neighbouring spans of a part differ in weight.
    """

    parts: tuple[tuple[Span, ...], ...]

    @property
    def words(self) -> str:
        """All words without weights, for encoders that read the whole text at once."""
        return " ".join("".join(span.text for span in part) for part in self.parts)

    @property
    def weights(self) -> list[float]:
        """Of every character of ``words``."""
        return [weight for part in self.parts for weight in [*(s.weight for s in part for _ in s.text), 1.0]][:-1]

    @property
    def weighted(self) -> bool:
        """Whether there is more to it than words: a weight, or a ``BREAK``."""
        return len(self.parts) > 1 or any(span.weight != 1 for span in self.parts[0])


def read(text: str) -> Reading:
    """A prompt's parts and weights; a text without brackets and ``BREAK`` is one span of weight 1, unchanged. Never raises."""
    pieces = _pieces(text) if re.search(r"[()\[\]]", text) else _split(text)
    parts: list[list[tuple[str, float]]] = [[]]
    for piece, weight in pieces:
        if piece is None:
            parts.append([])
        elif piece:
            parts[-1].append((piece, weight))
    if len(parts) > 1 and not parts[-1]:
        parts.pop()  # a BREAK at the end begins nothing
    return Reading(tuple(tuple(_merged(part)) for part in parts))


def _pieces(text: str) -> list[tuple[str | None, float]]:
    """Pieces with their weights; None is a ``BREAK``."""
    pieces: list[tuple[str | None, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(bracket: str, factor: float) -> None:
        start = opened[bracket].pop()
        pieces[start:] = [(piece, weight * factor) for piece, weight in pieces[start:]]

    for match in _TOKEN.finditer(text):
        bracket, weight = match["bracket"], match["weight"]
        if bracket and bracket in opened:
            opened[bracket].append(len(pieces))
        elif weight and opened["("]:
            multiply("(", float(weight))
        elif bracket == ")" and opened["("]:
            multiply("(", _STRONGER)
        elif bracket == "]" and opened["["]:
            multiply("[", 1 / _STRONGER)
        elif match["escaped"]:
            pieces.append((match["escaped"], 1.0))
        else:
            pieces += _split(match[0])
    for bracket, factor in (("(", _STRONGER), ("[", 1 / _STRONGER)):
        while opened[bracket]:
            multiply(bracket, factor)
    return pieces


def _split(text: str) -> list[tuple[str | None, float]]:
    first, *others = _BREAK.split(text)
    return [(first, 1.0), *(piece for other in others for piece in ((None, 1.0), (other, 1.0)))]


def _merged(part: list[tuple[str, float]]) -> list[Span]:
    """Neighbours of one weight as one, so that brackets that weigh nothing do not cut words in two."""
    return [Span("".join(text for text, _ in group), weight) for weight, group in groupby(part, key=lambda piece: piece[1])]
