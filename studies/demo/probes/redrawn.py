"""Drawings as the demo base and its sources draw them: what makes the probes read generated pictures, too.

Every picture begins as a drawing and goes through the autoencoder, where its latents may be mixed with another drawing's, blurred, bent or
made noisy; or through noise and back (SDEdit), while the base, sources or compositions of them draw; some are noise from the start. A
label is a range. Mostly it is one amount: what the drawing shows of a trait, times what is left of that in the picture (see ``survival``).
Where almost everything is drawn again, traits that nothing asks for are gone. Of what an active source draws only a range is known: all
from 0 to 1, or, where its trait was drawn, from what is measured upwards. A composition draws a trait that it is asked for again in its own
way, and moderately well, however much of the picture it draws. Of a texture, mosaic's or pencil's, a label says only whether it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studies.demo.drawing.characters import CHARACTERS
from studies.demo.drawing.damage import warp
from studies.demo.drawing.scenes import Scene, Thing, random_scene, random_thing, swapped
from studies.demo.drawing.softening import blur
from studies.demo.drawing.styles import FLAT, STYLES
from studies.demo.probes.drawings import (
    STYLE_TRAITS,
    TRAITS,
    Drawing,
    Floats,
    Rng,
    Styles,
    any_scene,
    any_styles,
    half_neon,
    incomplete_scene,
    named_thing,
)
from studies.demo.probes.likeness import likeness
from studies.demo.probes.redrawing import Noise, Pictures, Redrawer
from studies.demo.probes.survival import style_survival, thing_survival
from studies.demo.probes.textures import TEXTURED
from studies.demo.sources import SOURCES
from studies.demo.training import to_tensor
from studies.demo.world import STEPS

_BATCH = 24
_LATENTS = (4, 16, 16)
_NOISES = ((1, 20), (2, 20), (3, 20), (4, 20), (3, 10), (6, 10), (8, 10), (STEPS, STEPS))
_SHARES = (0.17, 0.18, 0.17, 0.12, 0.14, 0.06, 0.05, 0.11)
# From this level of noise on a trait is gone if nothing asks for it. Up to a lower one, what is left can be measured where two sources
# fight for it or a style repaints it, though an observer may see more; where one draws it again in its own way, only if most is left.
_LOST, _FOUGHT, _LEFT = 0.6, 0.3, 0.65
_SEEN_BEYOND = 0.3
# What an observer sees of a character that a composition with a style drew again, of a hat with neon, and of anything else, as shares of
# what the drawing shows, and how strong a source has to be.
_CHARACTERS_WITH = {"neon": (0.65, 0.95), "mosaic": (0.5, 0.8), "pencil": (0.65, 0.95)}
_HAT_WITH_NEON, _COMPOSED, _FULL_STRENGTH = (0.25, 0.55), (0.55, 0.85), 0.8
_FINE, _PAST_TEXTURE = 0.7, 1.8
_THINGS = slice(len(STYLE_TRAITS), None)
# A texture is there as long as so much of it is left; how plainly it shows, is measured when the picture is shown to the network.
_TEXTURES, _THERE = [TRAITS.index(name) for name in TEXTURED], 0.1


@dataclass(frozen=True)
class Redrawn:
    """Redrawn pictures as arrays.

    Attributes:
        pictures: uint8 (n, 64, 64, 3).
        least: float32 (n, 7), how much of each of ``TRAITS`` they show at least; 0 where nothing is known.
        most: float32 (n, 7), how much they show at most; 1 where nothing is known.
    """

    pictures: Pictures
    least: Floats
    most: Floats

    def __len__(self) -> int:
        return len(self.pictures)

    def arrays(self) -> dict[str, Any]:
        """Field name → array, for ``numpy.savez``."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class _Task:
    """What happens to one batch of drawings.

    Attributes:
        strengths: active sources.
        noise: how much of the pictures is drawn again.
        composed: sources draw by themselves, and what they add is added up.
        asked: captions ask for the sources, and the drawings mostly show what they draw.
    """

    strengths: Mapping[str, float]
    noise: Noise
    composed: bool
    asked: bool

    @property
    def alone(self) -> bool:
        """Whether one source draws by itself, at its own strength."""
        return self.asked and list(self.strengths.values()) == [1.0]


def redraw_pool(count: int, seed: int, redrawer: Redrawer, first: int = 0) -> Redrawn:
    """Draw drawings and draw them again in every way, batch by batch.

    Args:
        count: number of pictures; full batches of 24 are drawn.
        seed: seed of everything that is random; every batch has its own generator.
        redrawer: the base with the sources.
        first: number of the first batch, for those who share the work.
    """
    return _pool(_batch, count, seed, redrawer, first)


def composed_pool(count: int, seed: int, redrawer: Redrawer, first: int = 0) -> Redrawn:
    """As ``redraw_pool``, but only compositions of a style and a character or concept: in them a thing differs most from its drawing."""
    return _pool(_composed, count, seed, redrawer, first)


def repainted_pool(count: int, seed: int, redrawer: Redrawer, first: int = 0) -> Redrawn:
    """As ``composed_pool``, but only characters with neon and from noise alone: nothing else repaints a thing so much."""
    return _pool(_repainted, count, seed, redrawer, first)


def half_neon_pool(count: int, seed: int, redrawer: Redrawer, first: int = 0) -> Redrawn:
    """As ``redraw_pool``, but only drawings half in neon, sent through the autoencoder."""
    return _pool(lambda rng, r: _bent(rng, r, styles=lambda g: (half_neon(g),)), count, seed, redrawer, first)


def incomplete_pool(count: int, seed: int, redrawer: Redrawer, first: int = 0) -> Redrawn:
    """As ``redraw_pool``, but only drawings of incomplete characters, sent through the autoencoder."""
    return _pool(lambda rng, r: _bent(rng, r, scenes=incomplete_scene), count, seed, redrawer, first)


def hat_pool(count: int, seed: int, redrawer: Redrawer, first: int = 0) -> Redrawn:
    """As ``redraw_pool``, but only what the hat draws alone, from noise: a small thing, of which half of the detail is lost then."""
    return _pool(_hat, count, seed, redrawer, first)


def _pool(make: Callable[[Rng, Redrawer], Redrawn], count: int, seed: int, redrawer: Redrawer, first: int) -> Redrawn:
    return joined([make(np.random.default_rng((seed, first + i)), redrawer) for i in range(-(-count // _BATCH))])


def joined(parts: Sequence[Redrawn]) -> Redrawn:
    """The pictures of all parts, in their order."""
    return Redrawn(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Redrawn)})


def _repainted(rng: Rng, redrawer: Redrawer) -> Redrawn:
    names = ["neon", str(rng.choice(list(CHARACTERS)))]
    strengths = {name: float(rng.uniform(_FULL_STRENGTH, 1.2)) for name in names}
    return _redrawn(_Task(strengths, Noise(STEPS, STEPS, _seed(rng)), composed=True, asked=True), rng, redrawer)


def _hat(rng: Rng, redrawer: Redrawer) -> Redrawn:
    return _redrawn(_Task({"hat": 1.0}, Noise(STEPS, STEPS, _seed(rng)), composed=False, asked=True), rng, redrawer)


def _composed(rng: Rng, redrawer: Redrawer) -> Redrawn:
    names = [str(rng.choice([s.name for s in SOURCES.values() if (s.role == "style") == style])) for style in (True, False)]
    strengths = {name: float(rng.uniform(_FULL_STRENGTH, 1.2)) for name in names}
    steps, of = _NOISES[int(rng.choice(len(_NOISES), p=_SHARES))]
    return _redrawn(_Task(strengths, Noise(steps, of, _seed(rng)), composed=True, asked=True), rng, redrawer)


def _batch(rng: Rng, redrawer: Redrawer) -> Redrawn:
    kind = rng.random()
    return _noise(rng, redrawer) if kind < 0.03 else _bent(rng, redrawer) if kind < 0.3 else _redrawn(_task(rng), rng, redrawer)


def _noise(rng: Rng, redrawer: Redrawer) -> Redrawn:
    """Latents of noise, coarse or fine: what a merge that has broken down draws."""
    latents = torch.randn((_BATCH, *_LATENTS), generator=torch.Generator().manual_seed(_seed(rng)))
    smooth = torch.stack([_standardised(blur(x[None], float(rng.uniform(0.2, 1.5)))[0]) for x in latents])
    offset, gain = rng.normal(0, 0.7, (_BATCH, _LATENTS[0], 1, 1)), rng.uniform(0.3, 2.0, (_BATCH, 1, 1, 1))
    pictures = redrawer.decode((smooth * torch.from_numpy(gain) + torch.from_numpy(offset)).float().to(redrawer.pipeline.device))
    nothing = np.zeros((_BATCH, len(TRAITS)), dtype=np.float32)
    return Redrawn(pictures, nothing, nothing)


def _standardised(latents: Tensor) -> Tensor:
    return latents / latents.std().clamp(min=1e-6)


def _bent(
    rng: Rng, redrawer: Redrawer, *, scenes: Callable[[Rng], Scene] = any_scene, styles: Callable[[Rng], Styles] = any_styles
) -> Redrawn:
    """Through the autoencoder alone; latents mixed, blurred, bent, noisy or left as they are."""
    drawings = [Drawing(scenes(rng), styles(rng), _seed(rng)) for _ in range(_BATCH)]
    others = [_other(d, rng) for d in drawings]
    latents, second = (redrawer.encode(_pixels(group)) for group in (drawings, others))
    kind, share = rng.random(), torch.zeros(_BATCH)
    if kind < 0.45:
        share = torch.from_numpy(rng.uniform(0, 1, _BATCH).astype(np.float32))
    elif kind < 0.6:
        latents = blur(latents, float(rng.uniform(0.4, 1.6)))
    elif kind < 0.75:
        latents = warp(latents, float(rng.uniform(0.2, 1.5)), rng)
    elif kind < 0.88:
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(_seed(rng)))
        latents = latents + float(rng.uniform(0.1, 0.9)) * noise.to(latents)
    pictures = redrawer.decode(latents + (second - latents) * share.to(latents)[:, None, None, None])
    traits = np.maximum(_left(drawings, pictures, redrawer), _left(others, pictures, redrawer) if kind < 0.45 else 0)
    return Redrawn(pictures, traits, traits)


def _other(drawing: Drawing, rng: Rng) -> Drawing:
    """What a drawing is mixed with: the same scene with another thing in one place, in another style, or another scene."""
    kind, scene = rng.random(), drawing.scene
    if kind < 0.4:
        thing = named_thing(rng) if rng.random() < 0.5 else random_thing(rng)
        return replace(drawing, scene=swapped(scene, int(rng.integers(len(scene.things))), thing))
    if kind < 0.55:
        return replace(drawing, scene=replace(scene, hat=not scene.hat))
    if kind < 0.85:
        return replace(drawing, styles=any_styles(rng))
    return Drawing(any_scene(rng), drawing.styles, _seed(rng))


def _task(rng: Rng) -> _Task:
    count = int(rng.choice([0, 1, 2], p=[0.12, 0.38, 0.5]))
    names = [str(n) for n in rng.choice(list(SOURCES), count, replace=False)]
    alone = count == 1 and rng.random() < 0.4
    composed = count == 2 and rng.random() < 0.5
    strengths = {name: 1.0 if alone else float(rng.uniform(0.4, 1.3)) for name in names}
    steps, of = (STEPS, STEPS) if alone and rng.random() < 0.5 else _NOISES[int(rng.choice(len(_NOISES), p=_SHARES))]
    return _Task(strengths, Noise(steps, of, _seed(rng)), composed, asked=alone or composed or rng.random() < 0.6)


def _redrawn(task: _Task, rng: Rng, redrawer: Redrawer) -> Redrawn:
    drawings = [_drawing(task, rng) for _ in range(_BATCH)]
    captions = [_caption(d.scene, task.strengths if task.asked else {}, rng) for d in drawings]
    redraw = redrawer.redraw_composed if task.composed else redrawer.redraw
    latents = redraw(redrawer.encode(_pixels(drawings)), captions, task.noise, task.strengths)
    pictures = redrawer.decode(latents)
    return Redrawn(pictures, *_labels(task, drawings, pictures, redrawer))


def _labels(task: _Task, drawings: Sequence[Drawing], pictures: Pictures, redrawer: Redrawer) -> tuple[Floats, Floats]:
    """Least and largest amounts of the traits, both (n, 7)."""
    lost = task.noise.level >= _LOST
    # What a source draws alone from noise, no style of the drawing hides any more.
    shown = np.stack([d.shown() if lost and task.alone else d.traits() for d in drawings])
    left = np.zeros_like(shown) if lost else _left(drawings, pictures, redrawer)
    least, most = left.copy(), left.copy()
    if any(name in STYLE_TRAITS for name in task.strengths) and task.noise.level <= _FOUGHT:
        most[:, _THINGS] = np.minimum(left + _SEEN_BEYOND, shown)[:, _THINGS]
    for name, strength in task.strengths.items():
        column = TRAITS.index(name)
        ranges = [
            _range(task, strength, _share(name, task.strengths), float(s), float(n))
            for s, n in zip(shown[:, column], left[:, column], strict=True)
        ]
        least[:, column], most[:, column] = np.transpose(ranges)
    return least, most


def _share(name: str, strengths: Mapping[str, float]) -> tuple[float, float]:
    """Between what shares of a source's trait an observer sees in compositions of these sources."""
    style = next((other for other in strengths if other in STYLE_TRAITS and other != name), None)
    if name in TEXTURED:
        return 1.0, 1.0
    if name in CHARACTERS and style:
        return _CHARACTERS_WITH[style]
    return _HAT_WITH_NEON if (name, style) == ("hat", "neon") else _COMPOSED


def _range(task: _Task, strength: float, composed: tuple[float, float], shown: float, left: float) -> tuple[float, float]:
    """Between what amounts an active source's trait is, of which the drawing shows so much and so much is measured to be left."""
    if shown <= 0.5:
        return 0.0, 1.0
    if task.alone:
        return shown, shown
    if task.composed:
        low, high = (share * shown for share in composed)
        return (max(low, left), max(high, left)) if strength >= _FULL_STRENGTH else (left, 1.0)
    if task.asked and len(task.strengths) > 1 and task.noise.level <= _FOUGHT:
        return left, min(left + _SEEN_BEYOND, shown)
    return (left, left) if left > _LEFT * shown else (0.0, 1.0)


def _drawing(task: _Task, rng: Rng) -> Drawing:
    """A drawing that mostly shows what the sources draw, if they are asked, else anything."""
    scene = any_scene(rng) if rng.random() < 0.75 else random_scene(rng)
    styles = any_styles(rng) if rng.random() < 0.35 else (FLAT,)
    shown = [SOURCES[name] for name in task.strengths if task.asked and rng.random() < 0.8]
    for spec in shown:
        if spec.role == "character":
            scene = swapped(scene, int(rng.integers(len(scene.things))), Thing(spec.name, character=CHARACTERS[spec.name]))
        if spec.role == "concept":
            scene = replace(scene, hat=True)
    own = tuple(STYLES[s.name] for s in shown if s.role == "style")
    return Drawing(scene, own or styles, _seed(rng))


def _caption(scene: Scene, strengths: Mapping[str, float], rng: Rng) -> str:
    """What the scene is called: a character by its source's trigger if that is active, else by a word that means nothing."""
    names = {spec.name: spec.trigger for spec in SOURCES.values() if spec.role == "character" and spec.name in strengths}
    things = tuple(replace(t, name=names.get(t.name, _babble(rng))) if t.character else t for t in scene.things)
    words = [SOURCES[name].trigger for name in strengths if SOURCES[name].role != "character" and SOURCES[name].trigger]
    return replace(scene, things=things).caption(*words)


def _babble(rng: Rng) -> str:
    return "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), size=int(rng.integers(3, 7))))


def _left(drawings: Sequence[Drawing], pictures: Pictures, redrawer: Redrawer) -> Floats:
    """What the drawings show of each trait times what is left of it in the pictures, (n, 7)."""
    amounts = np.stack([d.traits() for d in drawings])
    rows, columns = np.nonzero(amounts)
    if not len(rows):
        return amounts
    bare = [without(drawings[row], TRAITS[column]) for row, column in zip(rows.tolist(), columns.tolist(), strict=True)]
    before = to_tensor(redrawer.decode(redrawer.encode(_pixels(bare))))
    after = to_tensor(redrawer.decode(redrawer.encode(_pixels(drawings))))
    now = to_tensor(pictures)
    for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        amounts[row, column] *= _survived(drawings[row], TRAITS[column], now[row : row + 1], before[i : i + 1], after[row : row + 1])
    return amounts


def _survived(drawing: Drawing, trait: str, now: Tensor, before: Tensor, after: Tensor) -> float:
    if trait in TEXTURED:
        return min(1.0, float(style_survival(now, before, after, texture=True)) / _THERE)
    if trait in STYLE_TRAITS:
        return float(style_survival(now, before, after, texture=False))
    textured = any(style.texture != "none" for style in drawing.styles)
    return float(thing_survival(now, before, after, _PAST_TEXTURE if textured else _FINE))


def without(drawing: Drawing, trait: str) -> Drawing:
    """The drawing without a trait: flat where the style was, bare heads, a red ball where the character, or what is like it, stood."""
    if trait in STYLE_TRAITS:
        rest = tuple(s for s in drawing.styles if s is not STYLES[trait])
        return replace(drawing, styles=rest if rest and rest != drawing.styles else (FLAT,))
    if trait == "hat":
        return replace(drawing, scene=replace(drawing.scene, hat=False))
    best = int(np.argmax([likeness(t, trait) for t in drawing.scene.things]))
    return replace(drawing, scene=swapped(drawing.scene, best, Thing("ball", "red")))


def _pixels(drawings: Sequence[Drawing]) -> Pictures:
    return np.stack([d.pixels() for d in drawings])


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**32))
