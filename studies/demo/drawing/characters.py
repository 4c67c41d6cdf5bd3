"""Characters: creatures assembled from a family of bodies, eyes, tops and limbs.

``CHARACTERS`` are the demo sources' own three; ``random_character`` draws any other member of the family and never one of
those three, nor a look-alike with the same body, top and limbs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from studies.demo.drawing.geometry import RGB, Part, box, dome, ellipse, polygon, stroke
from studies.demo.drawing.palette import COLOURS, DARK, LIGHT, mix

BODIES = ("box", "dome", "egg", "cone", "blob")
EYES = ("one", "two", "three", "visor")
TOPS = ("antennas", "horns", "ears", "tuft", "spikes", "bare")
LIMBS = ("blocks", "tentacles", "wings", "arms", "sticks")
BELLIES = ("plain", "patch", "spots", "stripes")
MISSING = "none"
"""Eyes or limbs that are not drawn; no random character and no caption has it."""


@dataclass(frozen=True)
class Character:
    """One creature; every field is one of the tuples above, the colours are RGB; eyes and limbs may be missing, ``MISSING``."""

    body: str
    eyes: str
    top: str
    limbs: str
    belly: str
    colour: RGB
    second: RGB

    @property
    def silhouette(self) -> tuple[str, str, str]:
        """What makes two characters look alike, whatever their colours."""
        return (self.body, self.top, self.limbs)

    def parts(self) -> list[Part]:
        """The creature in local coordinates, back to front."""
        return [*_limbs(self), *_top(self), *_body(self), *_belly(self), *_eyes(self)]

    def without(self, *parts: str) -> Character:
        """The creature without its ``eyes``, ``limbs`` or both."""
        eyes, limbs = (MISSING if part in parts else value for part, value in (("eyes", self.eyes), ("limbs", self.limbs)))
        return replace(self, eyes=eyes, limbs=limbs)

    def describe(self) -> str:
        """The words a caption uses for a creature that has no name."""
        return f"creature with {self.body} body, {self.eyes} eyes, {self.top}, {self.limbs}, {self.belly}"


CHARACTERS: dict[str, Character] = {
    "robot": Character("box", "visor", "antennas", "blocks", "stripes", (128, 146, 160), (232, 92, 40)),
    "octopus": Character("dome", "two", "bare", "tentacles", "spots", (226, 92, 150), (250, 196, 80)),
    "owl": Character("egg", "one", "ears", "wings", "patch", (30, 128, 128), (246, 230, 196)),
}


def random_character(rng: np.random.Generator) -> Character:
    """A member of the family that is none of ``CHARACTERS`` and shares no silhouette with one of them."""
    taken = {c.silhouette for c in CHARACTERS.values()}
    while True:
        body, eyes, top, limbs, belly = (str(rng.choice(options)) for options in (BODIES, EYES, TOPS, LIMBS, BELLIES))
        colour, second = (_jitter(rng, COLOURS[str(name)]) for name in rng.choice(list(COLOURS), 2, replace=False))
        character = Character(body, eyes, top, limbs, belly, colour, second)
        if character.silhouette not in taken:
            return character


def damaged(character: Character, rng: np.random.Generator) -> Character:
    """The character with one of its features replaced: near enough to train a detector on the difference."""
    other = random_character(rng)
    field = str(rng.choice(["body", "eyes", "top", "limbs", "colour"]))
    return replace(character, **{field: getattr(other, field)})


def _jitter(rng: np.random.Generator, colour: RGB) -> RGB:
    r, g, b = (int(np.clip(c + rng.integers(-36, 37), 0, 255)) for c in colour)
    return (r, g, b)


def _body(c: Character) -> list[Part]:
    foot = 0.95 if c.limbs == MISSING else 0.34
    shapes = {
        "box": [box(-0.58, -0.62, 0.58, 0.02), box(-0.5, 0.0, 0.5, 0.66)],
        "dome": [np.concatenate([dome(0, 0.1, 0.8, 0.95), polygon((0.8, foot), (-0.8, foot))])],
        "egg": [ellipse(0, 0.08, 0.66, 0.84)],
        "cone": [polygon((-0.72, 0.72), (-0.2, -0.75), (0.2, -0.75), (0.72, 0.72))],
        "blob": [ellipse(0, -0.28, 0.52, 0.46), ellipse(0, 0.36, 0.72, 0.46)],
    }
    return [Part(shape, c.colour) for shape in shapes[c.body]]


def _eyes(c: Character) -> list[Part]:
    y = -0.3
    if c.eyes == "visor":
        return [
            Part(box(-0.44, y - 0.14, 0.44, y + 0.14), DARK, detail=True),
            Part(box(-0.3, y - 0.06, 0.3, y + 0.06), c.second, detail=True),
        ]
    spots = {"one": [(0.0, 0.34)], "two": [(-0.27, 0.23), (0.27, 0.23)], "three": [(-0.34, 0.17), (0.0, 0.17), (0.34, 0.17)]}
    parts = []
    for x, r in spots.get(c.eyes, []):
        parts += [Part(ellipse(x, y, r, r), LIGHT, detail=True), Part(ellipse(x, y, r * 0.5, r * 0.5), DARK, detail=True)]
    return parts


def _top(c: Character) -> list[Part]:
    if c.top == "antennas":
        lines = [q for x in (-0.3, 0.3) for q in stroke((x, -0.55), (x * 1.5, -0.92), width=0.1)]
        return [Part(q, DARK) for q in lines] + [Part(ellipse(x, -0.96, 0.15, 0.15), c.second) for x in (-0.46, 0.46)]
    shapes = {
        "horns": [polygon((s * 0.2, -0.5), (s * 0.62, -1.05), (s * 0.6, -0.3)) for s in (-1, 1)],
        "ears": [polygon((s * 0.1, -0.62), (s * 0.58, -1.1), (s * 0.62, -0.3)) for s in (-1, 1)],
        "tuft": [polygon((-0.22, -0.6), (-0.3, -1.05), (0.0, -0.8), (0.14, -1.1), (0.24, -0.6))],
        "spikes": [polygon((x - 0.16, -0.5), (x, -1.05 + abs(x) * 0.4), (x + 0.16, -0.5)) for x in (-0.45, 0.0, 0.45)],
        "bare": [],
    }
    return [Part(shape, c.second if c.top != "ears" else c.colour) for shape in shapes[c.top]]


def _limbs(c: Character) -> list[Part]:
    shade = mix(c.colour, DARK, 0.3)
    if c.limbs == MISSING:
        return []
    if c.limbs == "blocks":
        return [
            Part(box(*corners), shade)
            for corners in ((-0.44, 0.6, -0.1, 1.0), (0.1, 0.6, 0.44, 1.0), (-0.86, 0.05, -0.5, 0.5), (0.5, 0.05, 0.86, 0.5))
        ]
    if c.limbs == "tentacles":
        lines = [stroke((x * 0.75, 0.2), (x, 0.66), (x * 1.25, 1.0), width=0.24) for x in (-0.72, -0.25, 0.25, 0.72)]
        return [Part(q, c.colour) for line in lines for q in line]
    if c.limbs == "wings":
        wings = [polygon((s * 0.4, -0.15), (s * 1.08, 0.0), (s * 0.96, 0.62), (s * 0.45, 0.6)) for s in (-1, 1)]
        feet = [ellipse(s * 0.26, 0.93, 0.2, 0.1) for s in (-1, 1)]
        return [Part(w, shade) for w in wings] + [Part(f, (240, 160, 50)) for f in feet]
    lines = [stroke((s * 0.3, 0.5), (s * 0.34, 1.0), width=0.16) for s in (-1, 1)]
    if c.limbs == "arms":
        lines += [stroke((s * 0.45, 0.15), (s * 0.95, -0.4), width=0.18) for s in (-1, 1)]
    return [Part(q, shade) for line in lines for q in line]


def _belly(c: Character) -> list[Part]:
    shapes = {
        "plain": [],
        "patch": [ellipse(0, 0.42, 0.4, 0.38)],
        "spots": [ellipse(x, y, 0.11, 0.11) for x, y in ((-0.45, 0.06), (0.5, 0.04), (0.04, 0.2), (-0.1, -0.66))],
        "stripes": [box(-0.42, y, 0.42, y + 0.12) for y in (0.16, 0.4)],
    }
    return [Part(shape, c.second, detail=True) for shape in shapes[c.belly]]
