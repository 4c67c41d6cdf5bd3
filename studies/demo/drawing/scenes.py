"""Scenes: one or two things in a place, their caption, and their parts in picture coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from studies.demo.drawing.backgrounds import BACKGROUNDS
from studies.demo.drawing.characters import Character
from studies.demo.drawing.geometry import Part, ellipse, polygon
from studies.demo.drawing.objects import OBJECTS
from studies.demo.drawing.palette import COLOURS

PLACES = {"left": 0.31, "middle": 0.5, "right": 0.69}
HORIZON = 0.68


@dataclass(frozen=True)
class Thing:
    """A named object in a named colour, or a character under the name by which captions call it."""

    name: str
    colour: str = ""
    character: Character | None = None

    def phrase(self) -> str:
        """The words in the caption, e.g. ``a red ball``."""
        return f"a {self.colour} {self.name}" if self.colour else self.name

    def parts(self) -> list[Part]:
        """The thing in local coordinates, standing on y = 1."""
        return self.character.parts() if self.character else OBJECTS[self.name](COLOURS[self.colour])


@dataclass(frozen=True)
class Scene:
    """One or two things, a background and, for one thing, a place; ``hat`` puts the party hat on every thing."""

    things: tuple[Thing, ...]
    background: str
    place: str = "middle"
    hat: bool = False

    def caption(self, *extra: str) -> str:
        """The prompt that asks for this scene; ``extra`` words are appended."""
        words = [" and ".join(t.phrase() for t in self.things)]
        words += [self.place] if len(self.things) == 1 else []
        return ", ".join([*words, self.background, *extra])

    def parts(self, rng: np.random.Generator) -> list[Part]:
        """All parts in picture coordinates, back to front; ``rng`` moves and sizes things a little."""
        horizon = HORIZON + rng.uniform(-0.04, 0.04)
        drawn = BACKGROUNDS[self.background](rng, horizon)
        centres = [PLACES[self.place]] if len(self.things) == 1 else [0.26, 0.74]
        for thing, centre in zip(self.things, centres, strict=True):
            scale = rng.uniform(0.26, 0.3) if len(self.things) == 1 else rng.uniform(0.2, 0.23)
            x = centre + rng.uniform(-0.03, 0.03)
            foot = min(horizon + rng.uniform(0.14, 0.26), 0.95)
            local = thing.parts()
            local += _hat(local) if self.hat else []
            drawn += [part.placed(x, foot - scale, scale) for part in local]
        return drawn


def random_thing(rng: np.random.Generator) -> Thing:
    """Any object in any colour."""
    return Thing(str(rng.choice(list(OBJECTS))), str(rng.choice(list(COLOURS))))


def random_scene(rng: np.random.Generator, pairs: float = 0.4) -> Scene:
    """A scene of plain objects; a share ``pairs`` of them shows two."""
    count = 2 if rng.random() < pairs else 1
    place = str(rng.choice(list(PLACES))) if count == 1 else "middle"
    return Scene(tuple(random_thing(rng) for _ in range(count)), str(rng.choice(list(BACKGROUNDS))), place)


def swapped(scene: Scene, index: int, thing: Thing) -> Scene:
    """The scene with its thing number ``index`` replaced."""
    return replace(scene, things=tuple(thing if i == index else t for i, t in enumerate(scene.things)))


def with_character(scene: Scene, name: str, character: Character, rng: np.random.Generator) -> Scene:
    """The scene with one of its things, chosen at random, replaced by the character."""
    return swapped(scene, int(rng.integers(len(scene.things))), Thing(name, character=character))


def _hat(parts: list[Part]) -> list[Part]:
    """A striped party hat with a pompon on the highest point of ``parts``."""
    corners = np.concatenate([p.points for p in parts])
    top = float(corners[:, 1].min())
    x = float(np.clip(corners[corners[:, 1] < top + 0.12, 0].mean(), -0.4, 0.4))
    y, tall, wide = top + 0.16, 0.78, 0.42

    def at(share: float) -> tuple[float, float]:
        return wide * (1 - share), y - tall * share

    def band(low: float, high: float) -> np.ndarray:
        (a, ya), (b, yb) = at(low), at(high)
        return polygon((x - a, ya), (x + a, ya), (x + b, yb), (x - b, yb))

    gold, pink = (252, 214, 40), (228, 40, 130)
    bands = [Part(band(low, low + 0.25), colour) for low, colour in zip((0, 0.25, 0.5, 0.75), (pink, gold, pink, gold), strict=True)]
    return [*bands, Part(ellipse(x, y - tall, 0.17, 0.17), (255, 255, 255))]
