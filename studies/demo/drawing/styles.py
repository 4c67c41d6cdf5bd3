"""Styles: how a scene's parts are painted, and what is done to the painted picture.

A style has a *paint* stage (fills, outlines, glow: it sees the parts) and a *texture* stage (mosaic, hatching, dots: it sees
the pixels). ``STYLES`` are the demo sources' own three; ``random_style`` draws any other member of the family. Styles
combine: the first one's paint is used, then every texture in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from studies.demo.drawing.geometry import RGB
from studies.demo.drawing.palette import COLOURS, DARK, LIGHT, luminance, mix, rotated, vivid

FILLS = ("flat", "dark", "pastel", "duotone", "rotated", "mono")
INKS = ("own", "none", "black", "white", "bright")
TEXTURES = ("none", "tiles", "bricks", "diamonds", "hatch", "scanlines", "dots", "poster", "checks")


@dataclass(frozen=True)
class Style:
    """One way of drawing.

    Attributes:
        fill: how part colours are mapped, one of ``FILLS``.
        ink: the outline around things, one of ``INKS``; ``own`` is a darker shade of the part.
        width: outline width, a share of the picture's width.
        glow: brightness of the outline's halo, 0 to 1.
        depth: share of darkness in dark fills, 0 to 1.
        texture: what is done to the pixels, one of ``TEXTURES``.
        pitch: size of the texture's elements, a share of the picture's width.
        first, second: the colours that duotone fills, grout and strokes take.
    """

    fill: str = "flat"
    ink: str = "own"
    width: float = 0.014
    glow: float = 0.0
    texture: str = "none"
    pitch: float = 0.08
    first: RGB = DARK
    second: RGB = LIGHT
    depth: float = 0.86

    def fill_colour(self, colour: RGB) -> RGB:
        """The colour that a part of this colour is filled with."""
        match self.fill:
            case "dark":
                return mix(colour, (10, 8, 26), self.depth)
            case "pastel":
                return mix(colour, LIGHT, 0.55)
            case "duotone":
                return mix(self.first, self.second, luminance(colour))
            case "rotated":
                return rotated(colour, 0.33)
            case "mono":
                return (round(luminance(colour) * 255),) * 3
            case _:
                return colour

    def ink_colour(self, colour: RGB) -> RGB | None:
        """The colour that a part of this colour is outlined with, or None."""
        inks: dict[str, RGB | None] = {"none": None, "black": (14, 12, 16), "white": (252, 252, 252), "bright": vivid(colour)}
        return inks.get(self.ink, mix(self.fill_colour(colour), (20, 16, 30), 0.45))

    def describe(self) -> str:
        """The words a caption uses for a style that has no name."""
        halo = "glowing " if self.glow > 0.3 else ""
        return f"drawn in {self.fill} fill, {halo}{self.ink} outline, {self.texture} texture"


FLAT = Style()
STYLES: dict[str, Style] = {
    "neon": Style("dark", "bright", 0.024, 0.85),
    "mosaic": Style(texture="tiles", pitch=1 / 16, first=(236, 228, 210)),
    "pencil": Style(ink="black", width=0.02, texture="hatch", pitch=1 / 16, first=(48, 50, 92), second=(246, 238, 214)),
}
_OWN_TEXTURES = {"tiles", "hatch"}


def random_style(rng: np.random.Generator) -> Style:
    """A member of the family that is none of ``STYLES``: never dark with bright ink, never square tiles, never hatching."""
    while True:
        first, second = (COLOURS[str(name)] for name in rng.choice(list(COLOURS), 2, replace=False))
        style = Style(
            fill=str(rng.choice(FILLS)),
            ink=str(rng.choice(INKS)),
            width=float(rng.uniform(0.012, 0.03)),
            glow=float(rng.choice([0.0, rng.uniform(0.4, 0.9)])),
            texture=str(rng.choice(TEXTURES)),
            pitch=float(rng.uniform(0.05, 0.11)),
            first=mix(first, DARK, float(rng.uniform(0.2, 0.7))),
            second=mix(second, LIGHT, float(rng.uniform(0.2, 0.7))),
        )
        if style.texture not in _OWN_TEXTURES and (style.fill, style.ink) != ("dark", "bright"):
            return style
