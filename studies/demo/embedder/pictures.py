"""Captioned drawings in random styles and with random characters: what the embedder learns from.

They come in *groups* of four that differ in one respect only (style, character, object or accessory), so that a batch holds
pictures that are hard to tell apart. None shows a style or character of the demo sources, nor a hat; other accessories teach
that what is worn matters.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.demo.base_model.tokenizer import MAX_LENGTH, caption_words
from studies.demo.drawing.accessories import ACCESSORIES, Dressed, Worn, dressed, random_worn
from studies.demo.drawing.backgrounds import BACKGROUNDS
from studies.demo.drawing.characters import BELLIES, BODIES, EYES, LIMBS, TOPS, Character, random_character
from studies.demo.drawing.draw import draw
from studies.demo.drawing.objects import OBJECTS
from studies.demo.drawing.palette import COLOURS
from studies.demo.drawing.scenes import PLACES, Scene, Thing, random_scene, random_thing, swapped
from studies.demo.drawing.styles import FILLS, FLAT, INKS, TEXTURES, Style, random_style

GROUP = 4
PARTS = ("objects", "creature", "worn", "place", "background", "style")
_ROOM = MAX_LENGTH - 3
CLASSES = {
    "background": tuple(BACKGROUNDS),
    "place": tuple(PLACES),
    "body": BODIES,
    "eyes": EYES,
    "top": TOPS,
    "limbs": LIMBS,
    "belly": BELLIES,
    "fill": FILLS,
    "ink": INKS,
    "texture": TEXTURES,
    "accessory": ("nothing", *ACCESSORIES),
}
HELD = len(OBJECTS) + len(COLOURS)
TINTS = 12
Rng = np.random.Generator
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Captioned:
    """A drawing and what can be said of it."""

    scene: Scene
    style: Style
    seed: int

    @property
    def character(self) -> Character | None:
        """The creature in the scene, if there is one."""
        return next((t.character for t in self.scene.things if t.character), None)

    @property
    def worn(self) -> Worn | None:
        """What is worn in the scene, if anything."""
        return next((t.worn for t in self.scene.things if isinstance(t, Dressed)), None)

    def pixels(self) -> NDArray[np.uint8]:
        """The picture, uint8 (64, 64, 3)."""
        return np.round(draw(self.scene, (self.style,), rng=np.random.default_rng(self.seed)) * 255).astype(np.uint8)

    def parts(self) -> list[str]:
        """The pieces of its caption, one for each of ``PARTS``, empty where there is nothing to say."""
        objects = " and ".join(t.phrase() for t in self.scene.things if not t.character)
        place = self.scene.place if len(self.scene.things) == 1 else ""
        creature = self.character.describe() if self.character else ""
        return [objects, creature, self.worn.phrase() if self.worn else "", place, self.scene.background, self.style.describe()]

    def classes(self) -> list[int]:
        """For each of ``CLASSES`` the number of its value, -1 where the picture has none."""
        values = {"background": self.scene.background} | vars(self.style) | (vars(self.character) if self.character else {})
        values["accessory"] = self.worn.accessory if self.worn else "nothing"
        values |= {"place": self.scene.place} if len(self.scene.things) == 1 else {}
        return [names.index(values[key]) if key in values else -1 for key, names in CLASSES.items()]

    def held(self) -> Floats:
        """Which objects and which colours of objects it shows, float32 (14,) of 0 and 1."""
        plain = [t for t in self.scene.things if not t.character]
        flags = [name in {t.name for t in plain} for name in OBJECTS] + [name in {t.colour for t in plain} for name in COLOURS]
        return np.array(flags, dtype=np.float32)

    def tints(self) -> Floats:
        """The two colours of the creature and of an accessory in [-1, 1], float32 (12,); NaN where there is none or it is repainted."""
        seen = (self.style.fill, self.style.ink) == (FLAT.fill, FLAT.ink)
        creature = (*self.character.colour, *self.character.second) if self.character and seen else (np.nan,) * 6
        accessory = (*self.worn.first, *self.worn.second) if self.worn and seen else (np.nan,) * 6
        return np.array([*creature, *accessory], dtype=np.float32) / 127.5 - 1


@dataclass(frozen=True)
class Groups:
    """Groups of captioned drawings as arrays.

    Attributes:
        pictures: uint8 (n, 4, 64, 64, 3).
        parts: caption pieces, str (n, 4, 6).
        key: int64 (n,), the number in ``PARTS`` of what the group's captions must say.
        classes: int64 (n, 4, 11).
        held: float32 (n, 4, 14).
        tints: float32 (n, 4, 12).
    """

    pictures: NDArray[np.uint8]
    parts: NDArray[np.str_]
    key: NDArray[np.int64]
    classes: NDArray[np.int64]
    held: Floats
    tints: Floats

    def __len__(self) -> int:
        return len(self.pictures)

    def arrays(self) -> dict[str, Any]:
        """Field name → array, for ``numpy.savez``."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def draw_groups(count: int, seed: int) -> Groups:
    """Draw ``count`` groups of four."""
    rng = np.random.default_rng(seed)
    keys, drawn = [], []
    for _ in range(count):
        key, group = _group(rng)
        keys.append(PARTS.index(key))
        drawn.append(group)
    return Groups(
        pictures=np.stack([np.stack([d.pixels() for d in g]) for g in drawn]),
        parts=np.array([[d.parts() for d in g] for g in drawn]),
        key=np.array(keys),
        classes=np.array([[d.classes() for d in g] for g in drawn]),
        held=np.stack([np.stack([d.held() for d in g]) for g in drawn]),
        tints=np.stack([np.stack([d.tints() for d in g]) for g in drawn]),
    )


def caption(parts: NDArray[np.str_] | list[str], key: int, rng: Rng) -> str:
    """A caption of a picture's pieces: what its group differs in, and of the rest most of what the tokenizer has room for.

    A picture in the plain style mostly goes without the words that say so, as the prompts of a base model do.
    """
    plain = str(parts[PARTS.index("style")]) == FLAT.describe() and key != PARTS.index("style")
    wanted = [i for i in rng.permutation(len(PARTS)) if i != key and rng.random() < (0.1 if plain and PARTS[i] == "style" else 0.75)]
    first = key if parts[key] else PARTS.index("creature" if parts[PARTS.index("creature")] else "objects")
    room, said = _ROOM, dict.fromkeys(PARTS, "")
    for i in dict.fromkeys([first, *wanted]):
        if (cost := _tokens(str(parts[i])) + 1) <= room:
            room, said[PARTS[i]] = room - cost, str(parts[i])
    things = " and ".join(filter(None, [said["objects"], said["creature"]]))
    subject = " ".join(filter(None, [things, said["worn"]]))
    return ", ".join(filter(None, [subject, said["place"], said["background"], said["style"]]))


@cache
def _tokens(text: str) -> int:
    """At most so many tokens: one for a caption word or a comma, one a letter for any other word."""
    words = text.replace(",", " , ").split()
    return sum(1 if word == "," or word in _WORDS else len(word) for word in words)


_WORDS = frozenset(caption_words())


def _group(rng: Rng) -> tuple[str, list[Captioned]]:
    """What the group differs in, and its four pictures."""
    kind, seed = rng.random(), int(rng.integers(2**32))
    scene = random_scene(rng)
    if kind < 0.33:
        scene = _dressed(_with_creature(scene, rng) if rng.random() < 0.4 else scene, rng)
        styles = [FLAT if i == 0 and rng.random() < 0.5 else random_style(rng) for i in range(GROUP)]
        return "style", [Captioned(scene, style, seed) for style in styles]
    style = FLAT if rng.random() < 0.65 else random_style(rng)
    if kind < 0.62:
        return "creature", [Captioned(_dressed(_with_creature(scene, rng), rng), style, seed) for _ in range(GROUP)]
    if kind < 0.8:
        scenes = [replace(scene, things=tuple(random_thing(rng) for _ in scene.things)) for _ in range(GROUP)]
        return "objects", [Captioned(_dressed(s, rng), style, seed) for s in scenes]
    scene = _with_creature(scene, rng) if rng.random() < 0.3 else scene
    scenes = [scene if i == 0 else _dressed(scene, rng, share=1.0) for i in range(GROUP)]
    return "worn", [Captioned(s, style, seed) for s in scenes]


def _with_creature(scene: Scene, rng: Rng) -> Scene:
    """The scene with its first thing replaced by a random character."""
    return swapped(scene, 0, Thing("creature", character=random_character(rng)))


def _dressed(scene: Scene, rng: Rng, share: float = 0.35) -> Scene:
    """In a ``share`` of the scenes the first thing, or every thing, wears an accessory."""
    if rng.random() >= share:
        return scene
    worn, count = random_worn(rng), int(rng.integers(1, 3))
    return replace(scene, things=tuple(dressed(t, worn) if i < count else t for i, t in enumerate(scene.things)))
