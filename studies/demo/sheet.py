"""The contact sheet: what base and sources draw, one row each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

_SCALE, _LABEL, _GAP = 2, 110, 4


def contact_sheet(rows: Mapping[str, Tensor], path: Path) -> Path:
    """Write labelled rows of pictures, each uint8 (n, 3, 64, 64), as one PNG."""
    side = 64 * _SCALE + _GAP
    width = max(len(pictures) for pictures in rows.values())
    sheet = Image.new("RGB", (_LABEL + side * width, side * len(rows)), (250, 250, 248))
    pen = ImageDraw.Draw(sheet)
    for y, (label, pictures) in enumerate(rows.items()):
        pen.text((8, y * side + side // 2 - 6), label, fill=(30, 30, 36))
        for x, picture in enumerate(pictures):
            tile = Image.fromarray(picture.permute(1, 2, 0).numpy())
            sheet.paste(tile.resize((64 * _SCALE,) * 2, Image.Resampling.NEAREST), (_LABEL + x * side, y * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
    return path
