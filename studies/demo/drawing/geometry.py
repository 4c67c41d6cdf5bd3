"""Parts: the flat, coloured polygons that every drawing of the demo world is made of.

Coordinates are local: x in [-1, 1] from left to right, y in [-1, 1] from top to bottom; ``placed`` moves them into the
picture, where both axes run over [0, 1].
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One polygon, shape (n, 2), with its colour; ``detail`` parts (eyes, windows) get no outline of their own."""

    points: Points
    colour: RGB
    detail: bool = False

    def placed(self, x: float, y: float, scale: float) -> Part:
        """Returns the part in picture coordinates: scaled, then its local origin moved to (x, y)."""
        return replace(self, points=self.points * scale + np.array([x, y]))


def polygon(*xy: tuple[float, float]) -> Points:
    """A polygon from its corners."""
    return np.array(xy, dtype=np.float64)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """An axis-aligned rectangle."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def ellipse(x: float, y: float, rx: float, ry: float, corners: int = 28) -> Points:
    """An ellipse around (x, y) with the half axes ``rx`` and ``ry``."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def dome(x: float, y: float, rx: float, ry: float, corners: int = 18) -> Points:
    """The upper half of an ellipse, flat side down at ``y``."""
    angle = np.linspace(np.pi, 2 * np.pi, corners)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def star(x: float, y: float, outer: float, inner: float, tips: int = 5) -> Points:
    """A star with one tip pointing up."""
    angle = np.arange(2 * tips) * np.pi / tips - np.pi / 2
    radius = np.where(np.arange(2 * tips) % 2 == 0, outer, inner)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def stroke(*xy: tuple[float, float], width: float) -> list[Points]:
    """A poly-line of the given width: one quadrilateral a segment."""
    quads = []
    for a, b in itertools.pairwise(xy):
        p, q = np.array(a, dtype=np.float64), np.array(b, dtype=np.float64)
        along = (q - p) / max(float(np.hypot(*(q - p))), 1e-9)
        side = np.array([-along[1], along[0]]) * width / 2
        quads.append(np.stack([p + side, q + side, q - side, p - side]))
    return quads
