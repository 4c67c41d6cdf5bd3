"""Drawings that say how much of each trait they show: what the probes learn from and are judged on.

Every item is a *pair* of drawings of one scene, one with more of a trait than the other, so that a cross-fade between them
has a known amount of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.demo.drawing.backgrounds import BACKGROUNDS
from studies.demo.drawing.characters import CHARACTERS, Character, damaged, random_character
from studies.demo.drawing.draw import SIZE, draw
from studies.demo.drawing.objects import OBJECTS
from studies.demo.drawing.palette import COLOURS
from studies.demo.drawing.scenes import Scene, Thing, random_scene, random_thing, swapped
from studies.demo.drawing.styles import FLAT, STYLES, Style, random_style
from studies.demo.probes.likeness import incomplete, likeness

TRAITS = (*STYLES, *CHARACTERS, "hat")
STYLE_TRAITS, CHARACTER_TRAITS = tuple(STYLES), tuple(CHARACTERS)
Rng = np.random.Generator
Floats = NDArray[np.float32]
Styles = tuple[Style, ...]
# What a style that is not neon has of it: its darkness, its glowing outlines, and both together. Nights are nearly as dark by themselves.
_DARK, _GLOWING, _BOTH = 0.3, 0.2, 0.5
_NIGHT = 0.7
# What is left of a thing to the eye in each named style: tiles swallow its details, strokes and darkness a part of them.
_CLARITY = {"neon": 0.85, "mosaic": 0.8, "pencil": 0.85}
COARSE = ("bricks", "diamonds")


@dataclass(frozen=True)
class Drawing:
    """A scene, the styles it is drawn in, and the seed that moves its parts."""

    scene: Scene
    styles: Styles
    seed: int

    def pixels(self) -> NDArray[np.uint8]:
        """The picture, uint8 (64, 64, 3)."""
        return np.round(draw(self.scene, self.styles, rng=np.random.default_rng(self.seed)) * 255).astype(np.uint8)

    def shown(self) -> Floats:
        """Whether each of ``TRAITS`` is drawn, float32 (7,) in [0, 1]; parts of it for what is like it."""
        things = {name: max(likeness(t, name) for t in self.scene.things) for name in CHARACTERS}
        amounts = style_traits(self.styles, night=self.scene.background == "night") | things | {"hat": float(self.scene.hat)}
        return np.array([amounts[trait] for trait in TRAITS], dtype=np.float32)

    def traits(self) -> Floats:
        """How much of each of ``TRAITS`` can be seen, float32 (7,) in [0, 1]: as ``shown``, less what the styles hide of things."""
        clear = np.prod([_CLARITY[name] for name, style in STYLES.items() if style in self.styles])
        seen: Floats = self.shown() * np.where([trait in STYLES for trait in TRAITS], 1, clear).astype(np.float32)
        return seen

    def objects(self) -> Floats:
        """Which of ``OBJECTS`` the scene holds, float32 (8,) of 0 and 1."""
        names = {t.name for t in self.scene.things if not t.character}
        return np.array([name in names for name in OBJECTS], dtype=np.float32)

    def colours(self) -> Floats:
        """In which of ``COLOURS`` its objects are, float32 (6,) of 0 and 1."""
        names = {t.colour for t in self.scene.things if not t.character}
        return np.array([name in names for name in COLOURS], dtype=np.float32)

    @property
    def plain(self) -> bool:
        """Whether the parts keep their own colours."""
        return all(s.fill == FLAT.fill and s.ink == FLAT.ink and s.texture in ("none", "tiles") for s in self.styles)


def style_traits(styles: Sequence[Style], *, night: bool = False) -> dict[str, float]:
    """How much of each named style is drawn: a texture always, the neon paint if it was the one that painted.

    Other dark paint shows a part of neon, and so do other outlines that glow in bright colours. How plainly a texture shows, is another
    question (see ``textures``).
    """
    painter = next((s for s in styles if (s.fill, s.ink) != (FLAT.fill, FLAT.ink)), FLAT)
    shown = {name: float(style in styles and (style.texture != "none" or style == painter)) for name, style in STYLES.items()}
    dark = (painter.fill == "dark") * min(1.0, painter.depth / STYLES["neon"].depth)
    glowing = (painter.ink == "bright") * min(1.0, painter.glow / STYLES["neon"].glow)
    both = max(dark, _NIGHT * night) * glowing
    return shown | {"neon": max(shown["neon"], _DARK * dark + _GLOWING * glowing + _BOTH * both)}


@dataclass(frozen=True)
class Pool:
    """Pairs of drawings as arrays; the second axis runs over the two drawings.

    Attributes:
        pictures: uint8 (n, 2, 64, 64, 3).
        traits: float32 (n, 2, 7).
        objects: float32 (n, 2, 8).
        colours: float32 (n, 2, 6).
        background: int64 (n, 2).
        plain: bool (n, 2), whether ``colours`` can be seen.
        blend: int64 (n,): 0 for two unrelated drawings, 1 where a cross-fade has a known meaning, 2 where also fading a part
            of the picture has.
    """

    pictures: NDArray[np.uint8]
    traits: Floats
    objects: Floats
    colours: Floats
    background: NDArray[np.int64]
    plain: NDArray[np.bool_]
    blend: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pictures)

    def arrays(self) -> dict[str, Any]:
        """Field name → array, for ``numpy.savez``."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def draw_pool(count: int, seed: int) -> Pool:
    """Draw ``count`` pairs."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(len(_KINDS), count, p=[share for _, share, _ in _KINDS])
    pairs = [_KINDS[k][0](rng) for k in kinds]
    return Pool(
        pictures=np.stack([np.stack([d.pixels() for d in pair]) for pair in pairs]).reshape(count, 2, SIZE, SIZE, 3),
        traits=np.stack([[d.traits() for d in pair] for pair in pairs]),
        objects=np.stack([[d.objects() for d in pair] for pair in pairs]),
        colours=np.stack([[d.colours() for d in pair] for pair in pairs]),
        background=np.array([[list(BACKGROUNDS).index(d.scene.background) for d in pair] for pair in pairs]),
        plain=np.array([[d.plain for d in pair] for pair in pairs]),
        blend=np.array([_KINDS[k][2] for k in kinds]),
    )


def any_scene(rng: Rng) -> Scene:
    """Objects, characters of every sort, and now and then hats."""
    scene = random_scene(rng)
    things = tuple(_creature(rng) if rng.random() < 0.5 else thing for thing in scene.things)
    return replace(scene, things=things, hat=bool(rng.random() < 0.15))


def any_styles(rng: Rng) -> Styles:
    """Plain, a named style, a random one, or two of which at least one is named and both can be seen."""
    kind = rng.random()
    if kind < 0.3:
        return (FLAT,)
    if kind < 0.88:
        return (named_style(rng) if kind < 0.52 else fine_style(rng),)
    return two_styles(named_style(rng), rng)


def fine_style(rng: Rng) -> Style:
    """A random style whose texture leaves shapes whole."""
    while (style := random_style(rng)).texture in COARSE:
        pass
    return style


def named_style(rng: Rng) -> Style:
    """One of ``STYLES``."""
    return STYLES[str(rng.choice(list(STYLES)))]


def half_neon(rng: Rng) -> Style:
    """Neon that is less dark, glows less, or both."""
    depth, glow = (float(rng.uniform(0, 1)) for _ in range(2))
    neon = STYLES["neon"]
    return replace(neon, depth=neon.depth * depth, glow=neon.glow * glow, width=float(rng.uniform(0.012, 0.03)))


def two_styles(style: Style, rng: Rng) -> Styles:
    """The named style together with another named or a random one, in an order in which it can be seen."""
    others = [s for s in STYLES.values() if s is not style]
    other = others[int(rng.integers(len(others)))] if rng.random() < 0.6 else random_style(rng)
    pair = (style, other) if style is STYLES["neon"] or rng.random() < 0.5 else (other, style)
    return pair if all(style_traits(pair)[n] for n, s in STYLES.items() if s in pair) else pair[::-1]


def named_thing(rng: Rng) -> Thing:
    """One of ``CHARACTERS``."""
    name = str(rng.choice(list(CHARACTERS)))
    return Thing(name, character=CHARACTERS[name])


def incomplete_scene(rng: Rng) -> Scene:
    """Any scene, with an incomplete character in one place."""
    scene = any_scene(rng)
    return swapped(scene, int(rng.integers(len(scene.things))), incomplete(_often_octopus(rng), rng))


def _creature(rng: Rng) -> Thing:
    kind = rng.random()
    if kind < 0.5:
        return named_thing(rng)
    return Thing("creature", character=random_character(rng)) if kind < 0.8 else _lookalike(named_thing(rng), rng)


def _lookalike(thing: Thing, rng: Rng) -> Thing:
    assert thing.character is not None
    character: Character = damaged(thing.character, rng)
    return Thing("creature", character=damaged(character, rng) if rng.random() < 0.3 else character)


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**32))


def _style_pair(rng: Rng) -> tuple[Drawing, Drawing]:
    """Returns one scene without and with a named style."""
    scene, seed, kind = any_scene(rng), _seed(rng), rng.random()
    style = named_style(rng)
    before: Styles = (FLAT,) if kind < 0.6 else (random_style(rng),) if kind < 0.85 else (named_style(rng),)
    after = (style,) if rng.random() < 0.75 else two_styles(style, rng)
    return Drawing(scene, before, seed), Drawing(scene, after, seed)


def _neon_pair(rng: Rng) -> tuple[Drawing, Drawing]:
    """Returns one scene plain or half in neon, and half or all in neon."""
    scene, seed = any_scene(rng), _seed(rng)
    before = half_neon(rng) if rng.random() < 0.5 else FLAT
    after = half_neon(rng) if rng.random() < 0.7 else STYLES["neon"]
    return Drawing(scene, (before,), seed), Drawing(scene, (after,), seed)


def _character_pair(rng: Rng) -> tuple[Drawing, Drawing]:
    """Returns one scene with something else and with a named character in one place."""
    scene, styles, seed, kind = any_scene(rng), any_styles(rng), _seed(rng), rng.random()
    index, thing = int(rng.integers(len(scene.things))), named_thing(rng)
    if kind < 0.25 and _shows_features(styles):
        other = _lookalike(thing, rng)
    elif kind < 0.45:
        other = named_thing(rng)
    else:
        other = Thing("creature", character=random_character(rng)) if kind < 0.75 else random_thing(rng)
    return Drawing(swapped(scene, index, other), styles, seed), Drawing(swapped(scene, index, thing), styles, seed)


def _incomplete_pair(rng: Rng) -> tuple[Drawing, Drawing]:
    """Returns one scene with an incomplete character and with the whole one, or an object, in its place."""
    scene, seed, name = any_scene(rng), _seed(rng), _often_octopus(rng)
    styles = (named_style(rng),) if rng.random() < 0.4 else any_styles(rng)
    index = int(rng.integers(len(scene.things)))
    other = Thing(name, character=CHARACTERS[name]) if rng.random() < 0.6 else random_thing(rng)
    pair = [Drawing(swapped(scene, index, thing), styles, seed) for thing in (incomplete(name, rng), other)]
    return pair[0], pair[1]


def _often_octopus(rng: Rng) -> str:
    """The name of a character, twice as often the one that more parts can miss."""
    return str(rng.choice(CHARACTER_TRAITS, p=[0.5 if name == "octopus" else 0.25 for name in CHARACTER_TRAITS]))


def _shows_features(styles: Styles) -> bool:
    """Whether a single replaced feature, colour included, can be told in these styles."""
    return all(s in (FLAT, STYLES["neon"]) for s in styles)


def _hat_pair(rng: Rng) -> tuple[Drawing, Drawing]:
    """Returns one scene without and with hats."""
    scene, styles, seed = any_scene(rng), any_styles(rng), _seed(rng)
    return Drawing(replace(scene, hat=False), styles, seed), Drawing(replace(scene, hat=True), styles, seed)


def _plain_pair(rng: Rng) -> tuple[Drawing, Drawing]:
    """Two unrelated plain scenes of objects."""
    return Drawing(random_scene(rng), (FLAT,), _seed(rng)), Drawing(random_scene(rng), (FLAT,), _seed(rng))


def _odd_pair(rng: Rng) -> tuple[Drawing, Drawing]:
    """Two unrelated scenes in random styles."""
    return Drawing(any_scene(rng), (random_style(rng),), _seed(rng)), Drawing(any_scene(rng), (random_style(rng),), _seed(rng))


_KINDS = (
    (_style_pair, 0.21, 2),
    (_neon_pair, 0.06, 2),
    (_character_pair, 0.37, 1),
    (_incomplete_pair, 0.09, 1),
    (_hat_pair, 0.13, 1),
    (_plain_pair, 0.08, 0),
    (_odd_pair, 0.06, 0),
)
