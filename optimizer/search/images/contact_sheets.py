"""Contact sheets: one small image per recipe, named and linked to its trials like an Optuna artifact."""

from __future__ import annotations

import io
import json
import math

import numpy as np
from PIL import Image
from torch import Tensor

from studies.directory import SHEETS
from studies.store import Store

_EDGE, _LARGEST, _QUALITY = 1280, 256, 80
_SMALLEST = 96


def keep_sheet(store: Store, recipe_hash: str, images: Tensor) -> None:
    """Writes the contact sheet of a recipe's pictures; raises OSError.

    Args:
        store: destination; the name is ``sheets/ID``, without suffix, as ``optuna-dashboard --artifact-dir`` expects.
        recipe_hash: content hash of the recipe, hexadecimal.
        images: pictures, uint8, (n, 3, height, width).
    """
    packed = io.BytesIO()
    sheet(images).save(packed, "WEBP", quality=_QUALITY)
    store.write(sheet_name(recipe_hash), packed.getvalue())


def sheet(images: Tensor, columns: int | None = None) -> Image.Image:
    """Returns the pictures in a grid, at most 256 pixels wide each and 1280 in total.

    Args:
        images: pictures, uint8, (n, 3, height, width), n ≥ 1.
        columns: number of columns; None for a roughly square grid.
    """
    count, _, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count * height / width))
    rows = math.ceil(count / columns)
    edge = min(_LARGEST, _EDGE // columns)
    factor = edge / width if width > edge else max(1, math.ceil(_SMALLEST / width))
    cell = max(1, round(width * factor)), max(1, round(height * factor))
    whole = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    for index, picture in enumerate(images):
        shown = Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))
        resample = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
        row, column = divmod(index, columns)
        whole.paste(shown.resize(cell, resample), (column * cell[0], row * cell[1]))
    return whole


def sheet_id(recipe_hash: str) -> str:
    """Returns the artifact id of a recipe's sheet: hexadecimal digits, as optuna-dashboard requires."""
    return recipe_hash[:16]


def sheet_name(recipe_hash: str) -> str:
    """Returns the store name of a recipe's contact sheet."""
    return f"{SHEETS}/{sheet_id(recipe_hash)}"


def sheet_links(store: Store, recipe_hash: str) -> dict[str, str]:
    """Returns the system attribute that links a trial to its sheet, as ``optuna.artifacts.upload_artifact`` does; empty without a sheet."""
    if store.read(sheet_name(recipe_hash)) is None:
        return {}
    name = sheet_id(recipe_hash)
    meta = {"artifact_id": name, "filename": f"{name}.webp", "mimetype": "image/webp", "encoding": None}
    return {f"artifacts:{name}": json.dumps(meta)}
