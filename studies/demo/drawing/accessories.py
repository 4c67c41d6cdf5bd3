"""Accessories: small things on top of other things, so that an eye trained on them minds what is worn. No hat is among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from studies.demo.drawing.geometry import RGB, Part, box, ellipse, polygon, star, stroke
from studies.demo.drawing.palette import COLOURS, DARK, LIGHT, mix
from studies.demo.drawing.scenes import Thing


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


def _candle(a: RGB, b: RGB) -> list[Part]:
    bands = [Part(box(-0.17, low - 0.18, 0.17, low), colour) for low, colour in ((0.1, a), (-0.08, b), (-0.26, a), (-0.44, b))]
    return [*bands, Part(ellipse(0, -0.74, 0.09, 0.14), (255, 170, 40))]


def _cornet(a: RGB, b: RGB) -> list[Part]:
    return [Part(polygon((-0.3, -0.32), (0.3, -0.32), (0, 0.14)), a), Part(ellipse(0, -0.46, 0.3, 0.26), b)]


def _tower(a: RGB, b: RGB) -> list[Part]:
    return [Part(box(-w, low - 0.26, w, low), colour) for low, w, colour in ((0.12, 0.42, a), (-0.14, 0.3, b), (-0.4, 0.18, a))]


ACCESSORIES: dict[str, Callable[[RGB, RGB], list[Part]]] = {
    "flag": _flag,
    "crown": _crown,
    "balloon": _balloon,
    "bow": _bow,
    "parcel": _parcel,
    "medal": _medal,
    "candle": _candle,
    "cornet": _cornet,
    "tower": _tower,
}


@dataclass(frozen=True)
class Worn:
    """An accessory with the name of its main colour and the two shades that it is drawn in."""

    accessory: str
    colour: str
    first: RGB
    second: RGB

    def phrase(self) -> str:
        """The words in the caption, e.g. ``with a red flag``."""
        return f"with a {self.colour} {self.accessory}"


@dataclass(frozen=True)
class Dressed(Thing):
    """A thing with an accessory on its highest point."""

    worn: Worn = Worn("bow", "red", COLOURS["red"], LIGHT)

    def parts(self) -> list[Part]:
        """The thing's parts and then the accessory's, in local coordinates."""
        bare = super().parts()
        corners = np.concatenate([p.points for p in bare])
        top = float(corners[:, 1].min())
        x = float(np.clip(corners[corners[:, 1] < top + 0.12, 0].mean(), -0.4, 0.4))
        return [*bare, *(p.placed(x, top, 1.0) for p in ACCESSORIES[self.worn.accessory](self.worn.first, self.worn.second))]


def random_worn(rng: np.random.Generator) -> Worn:
    """Any accessory in two different colours."""
    first, second = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
    shades = mix(COLOURS[first], DARK, float(rng.uniform(0, 0.3))), mix(COLOURS[second], LIGHT, float(rng.uniform(0, 0.4)))
    return Worn(str(rng.choice(list(ACCESSORIES))), first, *shades)


def dressed(thing: Thing, worn: Worn) -> Dressed:
    """The thing with the accessory on it."""
    return Dressed(thing.name, thing.colour, thing.character, worn)
