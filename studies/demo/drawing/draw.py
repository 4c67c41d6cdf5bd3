"""Drawing: a scene and its styles become a 64 × 64 picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from studies.demo.drawing.geometry import Part
from studies.demo.drawing.scenes import Scene
from studies.demo.drawing.styles import FLAT, Style

SIZE = 64
_FINE = 3 * SIZE
Pixels = NDArray[np.float32]


def draw(scene: Scene, styles: Sequence[Style] = (FLAT,), *, rng: np.random.Generator, noise: float = 0.0) -> Pixels:
    """Draw a scene, shape (64, 64, 3), float32 in [0, 1].

    The first style whose paint differs from the flat one paints, then every style's texture is laid over it in turn.
    """
    painter = next((s for s in styles if (s.fill, s.ink) != (FLAT.fill, FLAT.ink)), styles[0])
    fine = _paint(scene.parts(rng), painter)
    for style in styles:
        fine = _textured(fine, style)
    picture = fine.reshape(SIZE, 3, SIZE, 3, 3).mean(axis=(1, 3))
    if noise:
        picture = picture + rng.normal(0, noise, picture.shape)
    clipped: Pixels = np.clip(picture, 0, 1).astype(np.float32)
    return clipped


def _paint(parts: list[Part], style: Style) -> Pixels:
    picture = Image.new("RGB", (_FINE, _FINE))
    light = Image.new("RGB", (_FINE, _FINE)) if style.glow else None
    pen, halo = ImageDraw.Draw(picture), ImageDraw.Draw(light) if light else None
    width = max(1, round(style.width * _FINE))
    for part in parts:
        corners = [(float(x), float(y)) for x, y in part.points * _FINE]
        ink = None if part.detail and style.ink == "own" else style.ink_colour(part.colour)
        pen.polygon(corners, fill=style.fill_colour(part.colour))
        if ink is not None:
            thin = max(1, width // 2) if part.detail else width
            pen.line([*corners, corners[0]], fill=ink, width=thin, joint="curve")
            if halo:
                halo.polygon(corners, fill=(0, 0, 0))
                halo.line([*corners, corners[0]], fill=ink, width=2 * width)
    fine = np.asarray(picture, dtype=np.float32) / np.float32(255)
    if light:
        blurred = np.asarray(light.filter(ImageFilter.GaussianBlur(_FINE / 40)), dtype=np.float32) / np.float32(255)
        fine = np.minimum(fine + np.float32(style.glow) * blurred, np.float32(1))
    return fine


def _textured(fine: Pixels, style: Style) -> Pixels:
    cell = max(3, round(style.pitch * _FINE))
    y, x = np.mgrid[0:_FINE, 0:_FINE]
    first = np.array(style.first, dtype=np.float32) / np.float32(255)
    second = np.array(style.second, dtype=np.float32) / np.float32(255)
    luma = fine @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    match style.texture:
        case "tiles":
            return _cells(fine, y // cell, x // cell, (y % cell < cell * 0.18) | (x % cell < cell * 0.18), first)
        case "bricks":
            row = y // cell
            shifted = x + (row % 2) * cell
            return _cells(fine, row, shifted // (2 * cell), (y % cell < cell * 0.2) | (shifted % (2 * cell) < cell * 0.2), first)
        case "diamonds":
            a, b = x + y, x - y + _FINE
            return _cells(fine, a // (2 * cell), b // (2 * cell), (a % (2 * cell) < cell * 0.4) | (b % (2 * cell) < cell * 0.4), first)
        case "hatch":
            strokes = np.zeros_like(luma, dtype=bool)
            for limit, phase in ((0.86, x + y), (0.55, x - y + 4 * _FINE), (0.3, x + y + cell // 2)):
                strokes |= (phase % cell < cell * 0.36) & (luma < limit)
            paper = second * 0.8 + fine * 0.2
            return np.where(strokes[..., None], first * 0.75 + fine * 0.25, paper).astype(np.float32)
        case "scanlines":
            return np.where((y % cell < cell * 0.4)[..., None], fine * 0.45, fine).astype(np.float32)
        case "dots":
            radius = np.hypot(y % cell - cell / 2, x % cell - cell / 2)
            return np.where((radius < cell * 0.62 * np.sqrt(1 - luma * 0.85))[..., None], fine * 0.85, second).astype(np.float32)
        case "poster":
            return (np.round(fine * 2) / 2).astype(np.float32)
        case "checks":
            odd = (y // cell + x // cell) % 2 == 0
            return np.where(odd[..., None], fine, fine * 0.7 + first * 0.3).astype(np.float32)
        case _:
            return fine


def _cells(fine: Pixels, row: NDArray[np.int_], column: NDArray[np.int_], grout: NDArray[np.bool_], colour: Pixels) -> Pixels:
    """Every cell filled with its mean colour, with grout between the cells."""
    label = (row * (int(column.max()) + 1) + column).ravel()
    count = np.maximum(np.bincount(label), 1)
    mean = np.stack([np.bincount(label, weights=fine[..., c].ravel()) / count for c in range(3)], axis=1)
    return np.where(grout[..., None], colour, mean[label].reshape(fine.shape)).astype(np.float32)
