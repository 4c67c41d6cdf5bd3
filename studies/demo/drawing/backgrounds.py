"""The places that the demo base model knows by name: a sky or wall, a ground, and what marks the place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from studies.demo.drawing.geometry import RGB, Part, box, dome, ellipse, polygon

Rng = np.random.Generator


def _bands(top: RGB, ground: RGB, horizon: float) -> list[Part]:
    return [Part(box(0, 0, 1, 1), top, detail=True), Part(box(0, horizon, 1, 1), ground, detail=True)]


def _meadow(rng: Rng, y: float) -> list[Part]:
    x, h = rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.16)
    sky, ground = _bands((150, 204, 238), (124, 186, 88), y)
    return [sky, Part(dome(x, y + 0.01, 0.34, h), (104, 168, 84), detail=True), ground]


def _beach(rng: Rng, y: float) -> list[Part]:
    sea = rng.uniform(0.1, 0.18)
    sky, sand = _bands((206, 232, 240), (232, 206, 146), y)
    return [sky, Part(box(0, y - sea, 1, y), (74, 164, 190), detail=True), sand]


def _night(rng: Rng, y: float) -> list[Part]:
    sky, ground = _bands((36, 42, 92), (44, 62, 72), y)
    moon = ellipse(rng.uniform(0.12, 0.88), rng.uniform(0.1, 0.2), 0.07, 0.07)
    stars = [Part(ellipse(a, b, 0.014, 0.014, 6), (220, 222, 200), detail=True) for a, b in rng.uniform(0.05, 0.5, (4, 2)) * (1.9, 1)]
    return [sky, *stars, Part(moon, (244, 236, 196), detail=True), ground]


def _room(rng: Rng, y: float) -> list[Part]:
    x, wide = rng.uniform(0.12, 0.7), rng.uniform(0.14, 0.2)
    wall, floor = _bands((226, 196, 164), (150, 104, 74), y)
    window = [Part(box(x, 0.1, x + wide, 0.32), (250, 246, 232), detail=True)]
    return [wall, *window, floor]


def _snow(rng: Rng, y: float) -> list[Part]:
    sky, ground = _bands((172, 186, 200), (234, 240, 246), y)
    x = rng.uniform(0.15, 0.85)
    peak = Part(polygon((x - 0.3, y), (x, y - rng.uniform(0.26, 0.4)), (x + 0.3, y)), (128, 142, 166), detail=True)
    return [sky, peak, ground]


def _sunset(rng: Rng, y: float) -> list[Part]:
    sky, ground = _bands((246, 150, 92), (106, 60, 88), y)
    low = Part(box(0, y - 0.2, 1, y), (250, 190, 112), detail=True)
    sun = Part(dome(rng.uniform(0.15, 0.85), y, 0.13, 0.13), (255, 232, 150), detail=True)
    return [sky, low, sun, ground]


BACKGROUNDS: dict[str, Callable[[Rng, float], list[Part]]] = {
    "meadow": _meadow,
    "beach": _beach,
    "night": _night,
    "room": _room,
    "snow": _snow,
    "sunset": _sunset,
}
