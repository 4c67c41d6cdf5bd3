"""Sheets of pictures for people: rows and columns with their names, prompts above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_WIDEST, _NARROWEST = 384, 128
_GAP, _LINE, _FONT, _MARGIN = 4, 24, 15, 8
_MOST_NAMES = 200  # pixels for the names of rows
_PAPER, _INK, _FAINT = (250, 250, 248), (30, 30, 36), (96, 96, 104)


@dataclass(frozen=True)
class Band:
    """Pictures of one prompt.

    Attributes:
        caption: text above them.
        columns: name of each column.
        rows: name of each row, which may be empty, and its pictures, uint8, (n, 3, height, width), one a column.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, Tensor], ...]


def labelled_sheet(bands: Sequence[Band]) -> Image.Image:
    """Returns all bands below each other, with pictures 128 to 384 pixels wide.

    The names of the columns stand above the first band, and above each band whose rows have names.

    Args:
        bands: at least one, all of pictures of one size.
    """
    cell, left = _cell(bands[0].rows[0][1]), _width_of_names(bands)
    heads = [not index or any(name for name, _ in band.rows) for index, band in enumerate(bands)]
    heights = [_LINE * (1 + head) + len(band.rows) * (cell[1] + _GAP) + _MARGIN for band, head in zip(bands, heads, strict=True)]
    columns = max(len(band.columns) for band in bands)
    whole = Image.new("RGB", (left + columns * (cell[0] + _GAP) + _MARGIN, sum(heights) + _MARGIN), _PAPER)
    top = _MARGIN
    for band, head, height in zip(bands, heads, heights, strict=True):
        _draw_band(whole, band, (left, top), cell, head=head)
        top += height
    return whole


def _draw_band(whole: Image.Image, band: Band, corner: tuple[int, int], cell: tuple[int, int], *, head: bool) -> None:
    pen, (left, top) = ImageDraw.Draw(whole), corner
    if head:
        for index, name in enumerate(band.columns):
            pen.text((left + index * (cell[0] + _GAP), top), _fitted(name, cell[0]), fill=_INK, font=_font())
        top += _LINE
    pen.text((left, top), _fitted(band.caption, whole.width - left - _MARGIN), fill=_FAINT, font=_font())
    top += _LINE
    for name, pictures in band.rows:
        if name:
            pen.text((_MARGIN, top + cell[1] // 2 - _FONT // 2), _fitted(name, left - 2 * _MARGIN), fill=_INK, font=_font())
        for index, picture in enumerate(pictures):
            whole.paste(_tile(picture, cell), (left + index * (cell[0] + _GAP), top))
        top += cell[1] + _GAP


def _cell(pictures: Tensor) -> tuple[int, int]:
    """Returns width and height of a picture on the sheet."""
    height, width = pictures.shape[-2:]
    factor = _WIDEST / width if width > _WIDEST else -(-_NARROWEST // width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _tile(picture: Tensor, cell: tuple[int, int]) -> Image.Image:
    shown = Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))
    return shown.resize(cell, Image.Resampling.LANCZOS if cell[0] < shown.width else Image.Resampling.NEAREST)


def _width_of_names(bands: Sequence[Band]) -> int:
    widest = max(_font().getlength(name) for band in bands for name, _ in band.rows)
    return _MARGIN + (min(_MOST_NAMES, round(widest)) + _MARGIN if widest else 0)


def _fitted(text: str, width: int) -> str:
    """Returns a text that is cut to a width in pixels."""
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT)
