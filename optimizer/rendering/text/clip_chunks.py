"""Splitting of texts longer than CLIP's context into chunks, as in A1111's web UI."""

from __future__ import annotations

from collections.abc import Sequence

Token = tuple[int, float]
"""Token id and weight."""

BACK = 20
"""Number of tokens searched backwards for a comma, A1111's ``comma_padding_backtrack``."""


def split_chunks(tokens: Sequence[Token], size: int, comma: int, back: int = BACK) -> list[list[Token]]:
    """Splits tokens into chunks, after a comma if one is near the end, so that phrases are not split.

    Args:
        tokens: tokens of a text, without start and end tokens.
        size: maximum number of tokens per chunk, at least 1.
        comma: token id of the comma.
        back: a chunk ends after its last comma if that comma is among its last ``back`` tokens.

    Returns:
        Chunks of 1 to ``size`` tokens whose concatenation is the text; one empty chunk for an empty text.
    """
    chunks: list[list[Token]] = []
    rest = list(tokens)
    while len(rest) > size:
        cut = _cut([number for number, _ in rest[: size + 1]], size, comma, back)
        chunks.append(rest[:cut])
        rest = rest[cut:]
    return [*chunks, rest]


def _cut(numbers: Sequence[int], size: int, comma: int, back: int) -> int:
    """Returns the length of the next chunk; a comma just after a full chunk begins the next chunk, as in A1111."""
    if numbers[size] == comma:
        return size
    return next((i + 1 for i in range(size - 1, max(0, size - back) - 1, -1) if numbers[i] == comma), size)
