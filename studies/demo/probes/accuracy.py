"""How well the probes read drawings that they have never seen, in random styles and with random characters of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from studies.demo.drawing.backgrounds import BACKGROUNDS
from studies.demo.drawing.characters import CHARACTERS, Character, damaged, random_character
from studies.demo.drawing.damage import changed_region, warp
from studies.demo.drawing.scenes import Scene, Thing, random_scene, random_thing, swapped
from studies.demo.drawing.softening import blur
from studies.demo.drawing.styles import FLAT, STYLES, random_style
from studies.demo.probes.drawings import COARSE, STYLE_TRAITS, TRAITS, Drawing, Rng, Styles, named_thing, style_traits, two_styles
from studies.demo.probes.network import Probes
from studies.demo.probes.textures import TEXTURED, visible

SUBSETS = ("plain", *STYLES, "random", "two")
GRADES = (0.0, 0.25, 0.5, 0.75, 1.0)
_CLEAR_LOW, _CLEAR_HIGH = 0.2, 0.9
_TEXTURES = [TRAITS.index(name) for name in TEXTURED]
_SEEN_CONTRAST, _SEEN_PIXELS = 30, 40


@dataclass(frozen=True)
class _Sample:
    drawing: Drawing
    subset: str
    judged: NDArray[np.bool_]


def accuracy(probes: Probes, count: int = 3000, seed: int = 77) -> dict[str, float]:
    """Accuracies on ``count`` pictures in every sort of style and a third as many plain ones.

    A trait's accuracy is balanced: the mean of the shares of pictures with and without it that are read right at threshold
    0.5, each over pictures that clearly show it or clearly do not; a texture is shown as plainly as it is ``visible``. Some
    random styles leave next to nothing to be seen: in them, a character or hat counts as clearly shown only where at least 40
    pixels change when it is taken away and where no bricks or diamonds, whose cells are all larger than the mosaic's, break up
    its shape.

    Returns:
        ``TRAIT`` → accuracy over all pictures; ``TRAIT in SUBSET`` → within one of ``SUBSETS``; ``objects``, ``colours`` →
        share of plain pictures in which all are right; ``background``; ``look-alikes`` → share of the characters with
        one feature replaced that read below the character itself.
    """
    rng = np.random.default_rng(seed)
    samples = [_sample(rng, SUBSETS[i % len(SUBSETS)]) for i in range(count)]
    images = stacked([s.drawing for s in samples])
    read = torch.stack(list(probes.read(images).traits.values()), dim=1).numpy()
    truth = np.stack([s.drawing.shown() for s in samples])
    truth[:, _TEXTURES] *= visible(images.float() / 127.5 - 1).numpy()
    judged = np.stack([s.judged for s in samples]) & ((truth <= _CLEAR_LOW) | (truth >= _CLEAR_HIGH))
    figures = {}
    for column, trait in enumerate(TRAITS):
        for subset in (None, *SUBSETS):
            rows = judged[:, column] & np.array([subset in (None, s.subset) for s in samples])
            present = truth[rows, column] > 0.5
            if subset is None or trait not in STYLE_TRAITS:
                figures[f"{trait} in {subset}" if subset else trait] = _balanced(read[rows, column] > 0.5, present)
    return figures | _plain_figures(probes, rng, count // 3) | {"look-alikes": _lookalikes(probes, rng, count // 10)}


def grades(probes: Probes, count: int = 60, seed: int = 78) -> dict[str, list[float]]:
    """For each trait the mean reading along cross-fades from a plain scene without it to the same scene with it.

    Returns:
        Trait → one mean for each of ``GRADES``, the share of the picture with the trait.
    """
    rng, means = np.random.default_rng(seed), {}
    for trait in TRAITS:
        pairs = [_faded(trait, rng) for _ in range(count)]
        without, with_it = (stacked([pair[i] for pair in pairs]).float() for i in (0, 1))
        mixed = [(without + (with_it - without) * share).round().to(torch.uint8) for share in GRADES]
        means[trait] = [float(probes.read(images).traits[trait].mean()) for images in mixed]
    return means


def blends(probes: Probes, count: int = 60, seed: int = 79) -> dict[str, float]:
    """For each two characters how high the better of both reads on average where they are blended half and half.

    Half of the blends are even cross-fades of both in one place, half are creatures with every second feature of each.

    Returns:
        ``FIRST + SECOND`` → mean of the larger reading.
    """
    rng, means = np.random.default_rng(seed), {}
    for first, second in combinations(CHARACTERS, 2):
        pictures = torch.cat([_blended(first, second, even=bool(i % 2), rng=rng) for i in range(count)])
        traits = probes.read(pictures).traits
        means[f"{first} + {second}"] = float(torch.maximum(traits[first], traits[second]).mean())
    return means


def _blended(first: str, second: str, *, even: bool, rng: Rng) -> Tensor:
    scene, seed = random_scene(rng, pairs=0.0), int(rng.integers(2**32))
    characters = [CHARACTERS[first], CHARACTERS[second]]
    if not even:
        fields = list(vars(characters[0]))
        taken = {field: getattr(characters[1], field) for field in rng.permutation(fields)[::2]}
        return stacked([Drawing(swapped(scene, 0, Thing("creature", character=replace(characters[0], **taken))), (FLAT,), seed)])
    pair = stacked([Drawing(swapped(scene, 0, Thing("creature", character=c)), (FLAT,), seed) for c in characters])
    return pair.float().mean(dim=0, keepdim=True).round().to(torch.uint8)


def smears(probes: Probes, count: int = 60, seed: int = 80) -> dict[str, float]:
    """For each character and the hat the mean reading where it is an unrecognisable smear of the right colours in the right place."""
    rng, means = np.random.default_rng(seed), {}
    for trait in TRAITS[len(STYLES) :]:
        pairs = [_faded(trait, rng) for _ in range(count)]
        before, after = (stacked([pair[i] for pair in pairs]).float() / 127.5 - 1 for i in (0, 1))
        smeared = blur(warp(after, 8.0, rng), 5.0)
        images = after + (smeared - after) * changed_region(before, after)
        means[trait] = float(probes.read(((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)).traits[trait].mean())
    return means


def stacked(drawings: list[Drawing]) -> Tensor:
    """The drawings as the probes read them, uint8 (n, 3, 64, 64)."""
    return torch.from_numpy(np.stack([d.pixels() for d in drawings])).permute(0, 3, 1, 2).contiguous()


def _sample(rng: Rng, subset: str) -> _Sample:
    scene = replace(random_scene(rng), hat=bool(rng.random() < 0.4))
    for index in range(len(scene.things)):
        kind = rng.random()
        if kind < 0.8:
            scene = swapped(scene, index, named_thing(rng) if kind < 0.6 else Thing("creature", character=random_character(rng)))
    drawing = Drawing(scene, _styles(rng, subset), int(rng.integers(2**32)))
    return _Sample(drawing, subset, _seen(drawing) if subset in ("random", "two") else np.ones(len(TRAITS), dtype=bool))


def _styles(rng: Rng, subset: str) -> Styles:
    if subset == "two":
        return two_styles(STYLES[str(rng.choice(list(STYLES)))], rng)
    return (random_style(rng) if subset == "random" else FLAT if subset == "plain" else STYLES[subset],)


def _seen(drawing: Drawing) -> NDArray[np.bool_]:
    """For each trait, whether it is absent or can be seen: its shape is whole, and taking it away changes the picture."""
    scene, seen = drawing.scene, dict.fromkeys(style_traits(drawing.styles), True)
    whole = not any(style.texture in COARSE for style in drawing.styles)
    bare = replace(drawing, scene=replace(scene, hat=False))
    seen["hat"] = not scene.hat or (whole and _differ(drawing, bare))
    for name in CHARACTERS:
        places = [i for i, thing in enumerate(scene.things) if thing.name == name]
        without = [replace(drawing, scene=swapped(scene, i, Thing("ball", "red"))) for i in places]
        seen[name] = not places or (whole and any(_differ(drawing, other) for other in without))
    return np.array([seen[trait] for trait in TRAITS])


def _differ(first: Drawing, second: Drawing) -> bool:
    change = np.abs(first.pixels().astype(int) - second.pixels().astype(int)).max(axis=-1)
    return int((change > _SEEN_CONTRAST).sum()) >= _SEEN_PIXELS


def _balanced(read: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((read[truth].mean() + (~read[~truth]).mean()) / 2)


def _plain_figures(probes: Probes, rng: Rng, count: int) -> dict[str, float]:
    drawings = [Drawing(random_scene(rng), (FLAT,), int(rng.integers(2**32))) for _ in range(count)]
    read = probes.read(stacked(drawings))
    places = np.array([list(BACKGROUNDS).index(d.scene.background) for d in drawings])
    return {
        "objects": float(((read.objects.numpy() > 0.5) == np.stack([d.objects() for d in drawings])).all(axis=1).mean()),
        "colours": float(((read.colours.numpy() > 0.5) == np.stack([d.colours() for d in drawings])).all(axis=1).mean()),
        "background": float((read.background.argmax(dim=1).numpy() == places).mean()),
    }


def _lookalikes(probes: Probes, rng: Rng, count: int) -> float:
    """Share of plain scenes in which a look-alike reads lower than the character itself by at least a fifth."""
    lower = []
    for name in [str(rng.choice(list(CHARACTERS))) for _ in range(count)]:
        scene, seed = random_scene(rng), int(rng.integers(2**32))
        pair = [Thing("creature", character=c) for c in (CHARACTERS[name], _altered(CHARACTERS[name], rng))]
        whole, other = probes.read(stacked([Drawing(swapped(scene, 0, thing), (FLAT,), seed) for thing in pair])).traits[name].tolist()
        lower.append(whole - other > 0.2)
    return float(np.mean(lower))


def _altered(character: Character, rng: Rng) -> Character:
    """The character with one feature replaced by a different one."""
    while (other := damaged(character, rng)) == character:
        pass
    return other


def _faded(trait: str, rng: Rng) -> tuple[Drawing, Drawing]:
    """Returns a plain scene without and with the trait."""
    scene, seed = random_scene(rng), int(rng.integers(2**32))
    without = Drawing(scene, (FLAT,), seed)
    if trait in STYLES:
        return without, replace(without, styles=(STYLES[trait],))
    if trait == "hat":
        return without, replace(without, scene=replace(scene, hat=True))
    place = int(rng.integers(len(scene.things)))
    creature: Scene = swapped(scene, place, Thing("creature", character=random_character(rng)) if rng.random() < 0.5 else random_thing(rng))
    return replace(without, scene=creature), replace(without, scene=swapped(scene, place, Thing(trait, character=CHARACTERS[trait])))
