"""Chunks: how a text that is longer than CLIP reads at once is cut, as A1111's web UI cuts it."""

from __future__ import annotations

from collections.abc import Sequence

Token = tuple[int, float]
"""A token's number and weight."""

BACK = 20
"""How far back a comma is looked for, A1111's ``comma_padding_backtrack``."""


def chunked(tokens: Sequence[Token], size: int, comma: int, back: int = BACK) -> list[list[Token]]:
    """Cut tokens into chunks, after a comma where one is near the end, so that what belongs together stays so.

    Args:
        tokens: of a text, without start and end.
        size: tokens that a chunk holds, at least 1.
        comma: number of the comma's token.
        back: a chunk ends after its last comma if that is among its last so many tokens.

    Returns:
        Chunks of 1 to ``size`` tokens that joined are the text; of an empty text one empty chunk.
    """
    chunks: list[list[Token]] = []
    rest = list(tokens)
    while len(rest) > size:
        cut = _cut([number for number, _ in rest[: size + 1]], size, comma, back)
        chunks.append(rest[:cut])
        rest = rest[cut:]
    return [*chunks, rest]


def _cut(numbers: Sequence[int], size: int, comma: int, back: int) -> int:
    """Tokens of the next chunk; a comma that is the first one too many begins the next chunk, as in A1111."""
    if numbers[size] == comma:
        return size
    return next((i + 1 for i in range(size - 1, max(0, size - back) - 1, -1) if numbers[i] == comma), size)
