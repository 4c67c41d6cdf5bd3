r"""Prompt weights (emphasis): parser for the bracket syntax of A1111's web UI.

``(word)`` has weight 1.1, ``((word))`` 1.21, ``(word:1.3)`` 1.3, ``[word]`` 1/1.1; nested factors multiply. An unclosed bracket extends
to the end of the text; an unopened one is literal text. ``\(``, ``\)``, ``\[``, ``\]`` and, in a text with brackets, ``\\`` are literal
characters. The word ``BREAK`` ends a chunk. The grammar is that of ``parse_prompt_attention`` in A1111's stable-diffusion-webui, with
three differences: ``BREAK`` also works inside brackets, an invalid number is literal text, and a backslash before any other character
is kept.
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
    """Text of uniform weight; 1 is the weight without brackets."""

    text: str
    weight: float


@dataclass(frozen=True)
class WeightedPrompt:
    """Parsed prompt.

    Attributes:
        parts: spans between one ``BREAK`` and the next; adjacent spans of a part differ in weight.
    """

    parts: tuple[tuple[Span, ...], ...]

    @property
    def words(self) -> str:
        """Whole text without weights, for encoders that read it in one pass."""
        return " ".join("".join(span.text for span in part) for part in self.parts)

    @property
    def weights(self) -> list[float]:
        """Weight of every character of ``words``."""
        return [weight for part in self.parts for weight in [*(s.weight for s in part for _ in s.text), 1.0]][:-1]

    @property
    def weighted(self) -> bool:
        """Whether the prompt contains a weight other than 1 or a ``BREAK``."""
        return len(self.parts) > 1 or any(span.weight != 1 for span in self.parts[0])


def parse_prompt(text: str) -> WeightedPrompt:
    """Parses a prompt into parts and weights.

    A text without brackets and ``BREAK`` becomes one span of weight 1, unchanged. Never raises.
    """
    pieces = _pieces(text) if re.search(r"[()\[\]]", text) else _split(text)
    parts: list[list[tuple[str, float]]] = [[]]
    for piece, weight in pieces:
        if piece is None:
            parts.append([])
        elif piece:
            parts[-1].append((piece, weight))
    if len(parts) > 1 and not parts[-1]:
        parts.pop()  # a BREAK at the end adds no part
    return WeightedPrompt(tuple(tuple(_merge_spans(part)) for part in parts))


def _pieces(text: str) -> list[tuple[str | None, float]]:
    """Returns pieces of text with their weights; None stands for a ``BREAK``."""
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


def _merge_spans(part: list[tuple[str, float]]) -> list[Span]:
    """Merges adjacent pieces of equal weight into spans, so that brackets of weight 1 do not split words."""
    return [Span("".join(text for text, _ in group), weight) for weight, group in groupby(part, key=lambda piece: piece[1])]
