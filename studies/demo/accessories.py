"""Accessories: small things on top of other things, so that an eye trained on them minds what is worn. No hat is among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from studies.demo.geometry import RGB, Part, box, ellipse, polygon, star, stroke
from studies.demo.palette import COLOURS, DARK, LIGHT, mix
from studies.demo.scenes import Thing


def _flag(a: RGB, b: RGB) -> list[Part]:
    pole = [Part(q, DARK) for q in stroke((0, 0.1), (0, -0.7), width=0.08)]
    return [*pole, Part(polygon((0.03, -0.7), (0.5, -0.52), (0.03, -0.34)), a), Part(ellipse(0, -0.72, 0.08, 0.08), b)]


def _crown(a: RGB, b: RGB) -> list[Part]:
    zigzag = polygon((-0.4, 0.1), (-0.46, -0.38), (-0.2, -0.12), (0, -0.46), (0.2, -0.12), (0.46, -0.38), (0.4, 0.1))
    return [Part(zigzag, a), Part(box(-0.4, -0.04, 0.4, 0.1), b, detail=True)]


def _balloon(a: RGB, b: RGB) -> list[Part]:
    line = [Part(q, DARK) for q in stroke((0, 0.1), (0.06, -0.3), width=0.05)]
    return [*line, Part(ellipse(0.06, -0.5, 0.26, 0.3), a), Part(ellipse(-0.02, -0.6, 0.08, 0.1), b, detail=True)]


def _bow(a: RGB, b: RGB) -> list[Part]:
    wings = [polygon((0, 0.0), (s * 0.48, -0.26), (s * 0.48, 0.24)) for s in (-1, 1)]
    return [*(Part(w, a) for w in wings), Part(ellipse(0, 0, 0.13, 0.13), b)]


def _parcel(a: RGB, b: RGB) -> list[Part]:
    return [Part(box(-0.3, -0.44, 0.3, 0.1), a), Part(box(-0.08, -0.44, 0.08, 0.1), b, detail=True)]


def _medal(a: RGB, b: RGB) -> list[Part]:
    return [Part(star(0, -0.2, 0.36, 0.18), a), Part(ellipse(0, -0.2, 0.12, 0.12), b)]


ACCESSORIES: dict[str, Callable[[RGB, RGB], list[Part]]] = {
    "flag": _flag,
    "crown": _crown,
    "balloon": _balloon,
    "bow": _bow,
    "parcel": _parcel,
    "medal": _medal,
}


@dataclass(frozen=True)
class Dressed(Thing):
    """A thing with an accessory, in two colours, on its highest point."""

    accessory: str = "bow"
    first: RGB = DARK
    second: RGB = LIGHT

    def parts(self) -> list[Part]:
        """The thing's parts and then the accessory's, in local coordinates."""
        worn = super().parts()
        corners = np.concatenate([p.points for p in worn])
        top = float(corners[:, 1].min())
        x = float(np.clip(corners[corners[:, 1] < top + 0.12, 0].mean(), -0.4, 0.4))
        return [*worn, *(p.placed(x, top, 1.0) for p in ACCESSORIES[self.accessory](self.first, self.second))]


def dressed(thing: Thing, rng: np.random.Generator) -> Dressed:
    """The thing with a random accessory in two random colours."""
    first, second = (COLOURS[str(name)] for name in rng.choice(list(COLOURS), 2, replace=False))
    shades = mix(first, DARK, float(rng.uniform(0, 0.4))), mix(second, LIGHT, float(rng.uniform(0, 0.5)))
    return Dressed(thing.name, thing.colour, thing.character, str(rng.choice(list(ACCESSORIES))), *shades)
