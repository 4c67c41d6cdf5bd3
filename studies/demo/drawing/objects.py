"""The plain objects that the demo base model knows by name, each drawn in one main colour."""

from __future__ import annotations

from collections.abc import Callable

from studies.demo.drawing.geometry import RGB, Part, box, dome, ellipse, polygon, star
from studies.demo.drawing.palette import BROWN, DARK, LIGHT, mix


def _ball(c: RGB) -> list[Part]:
    return [Part(ellipse(0, 0.1, 0.9, 0.9), c), Part(ellipse(-0.3, -0.22, 0.26, 0.18), mix(c, LIGHT, 0.7), detail=True)]


def _house(c: RGB) -> list[Part]:
    return [
        Part(box(-0.72, -0.15, 0.72, 1.0), c),
        Part(polygon((-0.98, -0.12), (0, -1.0), (0.98, -0.12)), BROWN),
        Part(box(-0.2, 0.35, 0.2, 1.0), DARK, detail=True),
        Part(box(0.32, 0.1, 0.58, 0.36), LIGHT, detail=True),
        Part(box(-0.58, 0.1, -0.32, 0.36), LIGHT, detail=True),
    ]


def _tree(c: RGB) -> list[Part]:
    return [
        Part(box(-0.15, 0.2, 0.15, 1.0), BROWN),
        Part(polygon((-0.85, 0.5), (0, -0.4), (0.85, 0.5)), c),
        Part(polygon((-0.66, -0.05), (0, -1.0), (0.66, -0.05)), c),
    ]


def _star(c: RGB) -> list[Part]:
    return [Part(star(0, 0.08, 1.05, 0.45), c)]


def _fish(c: RGB) -> list[Part]:
    return [
        Part(polygon((0.4, 0.1), (1.05, -0.5), (1.05, 0.7)), mix(c, DARK, 0.25)),
        Part(ellipse(-0.2, 0.1, 0.85, 0.58), c),
        Part(ellipse(-0.62, -0.05, 0.15, 0.15), LIGHT, detail=True),
        Part(ellipse(-0.64, -0.05, 0.07, 0.07), DARK, detail=True),
    ]


def _mushroom(c: RGB) -> list[Part]:
    return [
        Part(polygon((-0.24, -0.05), (0.24, -0.05), (0.34, 1.0), (-0.34, 1.0)), (232, 218, 190)),
        Part(dome(0, 0.12, 1.0, 1.05), c),
        Part(ellipse(-0.42, -0.22, 0.17, 0.15), LIGHT, detail=True),
        Part(ellipse(0.12, -0.55, 0.17, 0.15), LIGHT, detail=True),
        Part(ellipse(0.5, -0.15, 0.15, 0.13), LIGHT, detail=True),
    ]


def _car(c: RGB) -> list[Part]:
    return [
        Part(polygon((-0.6, 0.15), (-0.38, -0.4), (0.38, -0.4), (0.66, 0.15)), mix(c, DARK, 0.15)),
        Part(box(-1.05, 0.1, 1.05, 0.68), c),
        Part(polygon((-0.42, 0.1), (-0.28, -0.25), (0.28, -0.25), (0.46, 0.1)), (196, 222, 236), detail=True),
        Part(ellipse(-0.56, 0.7, 0.3, 0.3), DARK),
        Part(ellipse(0.56, 0.7, 0.3, 0.3), DARK),
    ]


def _cup(c: RGB) -> list[Part]:
    return [
        Part(ellipse(0.62, 0.1, 0.42, 0.46), c),
        Part(ellipse(0.62, 0.1, 0.2, 0.24), DARK, detail=True),
        Part(polygon((-0.78, -0.7), (0.68, -0.7), (0.5, 1.0), (-0.6, 1.0)), c),
        Part(ellipse(-0.05, -0.7, 0.73, 0.17), mix(c, DARK, 0.55), detail=True),
    ]


OBJECTS: dict[str, Callable[[RGB], list[Part]]] = {
    "ball": _ball,
    "house": _house,
    "tree": _tree,
    "star": _star,
    "fish": _fish,
    "mushroom": _mushroom,
    "car": _car,
    "cup": _cup,
}
