"""What the embedder can tell apart, on drawings that it has never seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import binary_auroc

from studies.demo.drawing.characters import CHARACTERS, random_character
from studies.demo.drawing.scenes import Thing, random_scene, swapped
from studies.demo.drawing.styles import FLAT, STYLES, random_style
from studies.demo.probes.drawings import TRAITS, Drawing, Rng

BLENDS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def embedder_figures(folder: Path, count: int = 200, seed: int = 91) -> dict[str, float]:
    """How well the model in ``folder`` sees.

    Args:
        folder: an OpenCLIP model directory.
        count: pictures for each figure.
        seed: seed of the held-out drawings.

    Returns:
        ``styles of N``, ``characters of N`` → zero-shot accuracy in picking the right one of N held-out descriptions;
        ``character in a style`` → how much of a held-out character's effect is seen in a held-out style, 1 = all of it;
        ``TRAIT`` → area under the ROC curve by which a source's trait separates from the same plain scene along the axis
        between the two means, fitted on other pictures; ``TRAIT against its kind`` → the same against random styles or
        characters; ``TRAIT growth`` → share of steps along a cross-fade in which the mean projection on that axis grows;
        ``TRAIT halfway`` → the mean projection of the even mix, where 0 is without and 1 with the trait.
    """
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}", require_pretrained=True)
    words = open_clip.get_tokenizer(f"local-dir:{folder}")
    eye = _Eye(model.eval(), words)
    rng = np.random.default_rng(seed)
    figures = {}
    for options in (20, 100):
        figures[f"styles of {options}"] = _styles(eye, rng, options, count)
        figures[f"characters of {options}"] = _characters(eye, rng, options, count)
    figures["character in a style"] = _carried(eye, rng, count)
    for trait in TRAITS:
        figures |= _separation(eye, trait, rng, count)
    return figures


class _Eye:
    """Pictures and texts to unit vectors."""

    def __init__(self, model: open_clip.CLIP, words: open_clip.HFTokenizer) -> None:
        self.model, self.words = model, words

    @torch.no_grad()
    def see(self, pictures: Tensor) -> Tensor:
        """(n, 64, 64, 3) in [0, 255] → (n, d)."""
        scaled = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
        return torch.cat([self.model.encode_image(batch, normalize=True) for batch in torch.split(scaled, 100)])

    def draw(self, drawings: list[Drawing]) -> Tensor:
        """Drawings → (n, d)."""
        return self.see(_stacked(drawings))

    @torch.no_grad()
    def read(self, texts: list[str]) -> Tensor:
        """Texts → (n, d)."""
        vectors: Tensor = self.model.encode_text(self.words(texts), normalize=True)
        return vectors


def _stacked(drawings: list[Drawing]) -> Tensor:
    return torch.from_numpy(np.stack([d.pixels() for d in drawings]))


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**32))


def _styles(eye: _Eye, rng: Rng, options: int, count: int) -> float:
    """Zero-shot accuracy among ``options`` random styles, on scenes of objects."""
    styles = list({(s := random_style(rng)).describe(): s for _ in range(4 * options)}.values())[:options]
    answers = rng.integers(len(styles), size=count)
    drawings = [Drawing(random_scene(rng), (styles[a],), _seed(rng)) for a in answers]
    return _picked(eye, drawings, [s.describe() for s in styles], answers)


def _characters(eye: _Eye, rng: Rng, options: int, count: int) -> float:
    """Zero-shot accuracy among ``options`` random characters, alone in plain scenes."""
    creatures = list({(c := random_character(rng)).describe(): c for _ in range(4 * options)}.values())[:options]
    answers = rng.integers(len(creatures), size=count)
    scenes = [swapped(random_scene(rng, pairs=0.0), 0, Thing("creature", character=creatures[a])) for a in answers]
    return _picked(eye, [Drawing(s, (FLAT,), _seed(rng)) for s in scenes], [c.describe() for c in creatures], answers)


def _carried(eye: _Eye, rng: Rng, count: int) -> float:
    """Mean of ⟨c, c'⟩ / ‖c‖², where c is what a character changes in the embedding of a plain scene and c' in a style."""
    plain = [Drawing(random_scene(rng, pairs=0.0), (FLAT,), _seed(rng)) for _ in range(count)]
    shown = [replace(d, scene=swapped(d.scene, 0, Thing("creature", character=random_character(rng)))) for d in plain]
    styles = [(random_style(rng),) for _ in range(count)]
    painted = [[replace(d, styles=s) for d, s in zip(drawings, styles, strict=True)] for drawings in (plain, shown)]
    effect, carried = eye.draw(shown) - eye.draw(plain), eye.draw(painted[1]) - eye.draw(painted[0])
    return float(((effect * carried).sum(dim=1) / effect.square().sum(dim=1)).mean())


def _picked(eye: _Eye, drawings: list[Drawing], texts: list[str], answers: NDArray[np.int64]) -> float:
    """Share of the drawings to which the right text is nearest."""
    return float(((eye.draw(drawings) @ eye.read(texts).T).argmax(dim=1) == torch.from_numpy(answers)).float().mean())


def _separation(eye: _Eye, trait: str, rng: Rng, count: int) -> dict[str, float]:
    trios = [_trio(trait, rng) for _ in range(count)]
    plain, other, shown = (_stacked([trio[i] for trio in trios]) for i in range(3))
    half = count // 2
    figures = {}
    for name, rival in ((trait, plain), (f"{trait} against its kind", other)):
        without, with_it = eye.see(rival), eye.see(shown)
        axis = F.normalize((with_it[:half] - without[:half]).mean(dim=0), dim=0)
        scores, truth = torch.cat([without[half:], with_it[half:]]) @ axis, torch.arange(2).repeat_interleave(count - half)
        figures[name] = float(binary_auroc(scores.sigmoid(), truth))
        if rival is plain:
            figures |= _along(eye, trait, axis, plain[half:], shown[half:])
    return figures


def _along(eye: _Eye, trait: str, axis: Tensor, plain: Tensor, shown: Tensor) -> dict[str, float]:
    """Projections along cross-fades, 0 without and 1 with the trait."""
    steps = [float((eye.see(plain + (shown.float() - plain) * share) @ axis).mean()) for share in BLENDS]
    scaled = (np.array(steps) - steps[0]) / (steps[-1] - steps[0])
    return {f"{trait} growth": float((np.diff(scaled) > 0).mean()), f"{trait} halfway": float(np.interp(0.5, BLENDS, scaled))}


def _trio(trait: str, rng: Rng) -> tuple[Drawing, Drawing, Drawing]:
    """Returns one scene plain, with something else of the trait's kind, and with the trait."""
    plain = Drawing(random_scene(rng), (FLAT,), _seed(rng))
    if trait in STYLES:
        return plain, replace(plain, styles=(random_style(rng),)), replace(plain, styles=(STYLES[trait],))
    if trait == "hat":
        return plain, plain, replace(plain, scene=replace(plain.scene, hat=True))
    creatures = [Thing("creature", character=c) for c in (random_character(rng), CHARACTERS[trait])]
    other, shown = (replace(plain, scene=swapped(plain.scene, 0, creature)) for creature in creatures)
    return plain, other, shown
