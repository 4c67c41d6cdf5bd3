"""Drawings as the demo base and its sources draw them: what makes the probes read generated pictures, too.

Every picture begins as a drawing and goes through the autoencoder, where its latents may be mixed with another drawing's, blurred, bent or
made noisy; or through noise and back (SDEdit), while the base, sources or compositions of them draw. A trait's label is what the drawing
shows of it, times what is left of that in the picture (see ``survival``). Where almost everything is drawn again, traits that nothing asks
for are gone. What an active source draws is not known, except where its trait was drawn and is left, and where it is alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from studies.demo.characters import CHARACTERS
from studies.demo.damage import warp
from studies.demo.probe_pictures import STYLE_TRAITS, TRAITS, Drawing, Floats, Rng, any_scene, any_styles, likeness, named_thing
from studies.demo.redrawing import Noise, Pictures, Redrawer
from studies.demo.scenes import Scene, Thing, random_scene, random_thing, swapped
from studies.demo.softening import blur
from studies.demo.sources import SOURCES
from studies.demo.styles import FLAT, STYLES
from studies.demo.survival import style_survival, thing_survival
from studies.demo.training import to_tensor
from studies.demo.world import STEPS

_BATCH = 24
_NOISES = ((1, 20), (2, 20), (3, 20), (4, 20), (3, 10), (6, 10), (8, 10), (STEPS, STEPS))
_SHARES = (0.17, 0.18, 0.17, 0.12, 0.14, 0.06, 0.05, 0.11)
# From this level of noise on a trait is gone if nothing asks for it. Up to a lower one, what is left can be measured where two sources
# fight for it; where one draws it again in its own way, only if most is left.
_LOST, _FOUGHT, _LEFT = 0.6, 0.3, 0.65
_FINE, _PAST_TEXTURE = 0.7, 1.8


@dataclass(frozen=True)
class Redrawn:
    """Redrawn pictures as arrays.

    Attributes:
        pictures: uint8 (n, 64, 64, 3).
        traits: float32 (n, 7), how much of each of ``TRAITS`` they show.
        known: bool (n, 7), whether that is known.
    """

    pictures: Pictures
    traits: Floats
    known: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pictures)

    def arrays(self) -> dict[str, Any]:
        """Field name → array, for ``numpy.savez``."""
        return dict(vars(self))


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
    """Draw drawings and draw them again, batch by batch.

    Args:
        count: of pictures; full batches of 24 are drawn.
        seed: of all that is random; every batch has its own generator.
        redrawer: the base with the sources.
        first: number of the first batch, for those who share the work.
    """
    batches = [_batch(np.random.default_rng((seed, first + i)), redrawer) for i in range(-(-count // _BATCH))]
    return Redrawn(**{name: np.concatenate([vars(b)[name] for b in batches]) for name in vars(batches[0])})


def _batch(rng: Rng, redrawer: Redrawer) -> Redrawn:
    return _bent(rng, redrawer) if rng.random() < 0.35 else _redrawn(_task(rng), rng, redrawer)


def _bent(rng: Rng, redrawer: Redrawer) -> Redrawn:
    """Through the autoencoder alone; latents mixed, blurred, bent, noisy or left as they are."""
    drawings = [Drawing(any_scene(rng), any_styles(rng), _seed(rng)) for _ in range(_BATCH)]
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
    return Redrawn(pictures, traits, np.ones_like(traits, dtype=bool))


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
    count = int(rng.choice([0, 1, 2], p=[0.12, 0.42, 0.46]))
    names = [str(n) for n in rng.choice(list(SOURCES), count, replace=False)]
    alone = count == 1 and rng.random() < 0.4
    strengths = {name: 1.0 if alone else float(rng.uniform(0.4, 1.3)) for name in names}
    steps, of = (STEPS, STEPS) if alone and rng.random() < 0.5 else _NOISES[int(rng.choice(len(_NOISES), p=_SHARES))]
    composed = count == 2 and steps / of <= _FOUGHT and rng.random() < 0.5
    return _Task(strengths, Noise(steps, of, _seed(rng)), composed, asked=alone or rng.random() < 0.6)


def _redrawn(task: _Task, rng: Rng, redrawer: Redrawer) -> Redrawn:
    drawings = [_drawing(task, rng) for _ in range(_BATCH)]
    captions = [_caption(d.scene, task.strengths if task.asked else {}, rng) for d in drawings]
    redraw = redrawer.redraw_composed if task.composed else redrawer.redraw
    latents = redraw(redrawer.encode(_pixels(drawings)), captions, task.noise, task.strengths)
    pictures = redrawer.decode(latents)
    return Redrawn(pictures, *_labels(task, drawings, pictures, redrawer))


def _labels(task: _Task, drawings: Sequence[Drawing], pictures: Pictures, redrawer: Redrawer) -> tuple[Floats, NDArray[np.bool_]]:
    """Amounts of the traits and whether they are known, both (n, 7)."""
    shown = np.stack([d.traits() for d in drawings])
    lost = task.noise.level >= _LOST
    traits = np.zeros_like(shown) if lost else _left(drawings, pictures, redrawer)
    known = np.ones_like(shown, dtype=bool)
    for column in (TRAITS.index(name) for name in task.strengths):
        drawn = shown[:, column] > 0.5
        fought = task.asked and len(task.strengths) > 1 and task.noise.level <= _FOUGHT
        known[:, column] = drawn & (fought | (traits[:, column] > _LEFT * shown[:, column]))
        if task.alone:
            known[:, column] |= drawn
            traits[drawn, column] = shown[drawn, column]
    return traits, known


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
    if trait in STYLE_TRAITS:
        return float(style_survival(now, before, after, texture=STYLES[trait].texture != "none"))
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
