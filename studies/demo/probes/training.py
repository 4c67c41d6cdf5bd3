"""Training of the probes, on drawings, mixtures and damaged drawings, and on drawings that the base draws again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from studies.atomic import replacing
from studies.demo.drawing.damage import changed_region, damage, recolour
from studies.demo.drawing.softening import smear, soften
from studies.demo.probes.drawings import TRAITS, Pool, draw_pool
from studies.demo.probes.network import HEADS, ProbeNetwork, Probes
from studies.demo.probes.redrawing import load_redrawer
from studies.demo.probes.redrawn import (
    Redrawn,
    composed_pool,
    half_neon_pool,
    hat_pool,
    incomplete_pool,
    joined,
    redraw_pool,
    repainted_pool,
)
from studies.demo.probes.textures import TEXTURED, visible
from studies.demo.training import Plan, fit, to_tensor

PLAN = Plan(steps=5000, rate=3e-3, decay=0.02, seed=5, save_every=250)
_PAIRS, _BATCH = 16_000, 44
_REDRAWN, _COMPOSED, _HALF_NEON, _REPAINTED, _INCOMPLETE, _HATS, _BATCH_REDRAWN = 9_600, 1_920, 480, 480, 480, 240, 42
_TEXTURES = [TRAITS.index(name) for name in TEXTURED]


def train_probes(work: Path, base: Path, sources: Path, scale: float) -> Probes:
    """Draw the pictures and train the network; resumes from what ``work`` holds.

    Args:
        work: holds pictures and checkpoints.
        base: the built base, which draws pictures again.
        sources: folder of the built sources, which do so, too.
        scale: length of the training, 1 = the real one.
    """
    torch.manual_seed(5)
    network = ProbeNetwork().train().to(memory_format=torch.channels_last)
    drawn = Pool(**_kept(work / "probe_drawn.npz", lambda: draw_pool(round(_PAIRS * max(scale, 0.01)), seed=5).arrays()))
    redrawn = Redrawn(**_kept(work / "probe_redrawn.npz", lambda: _redrawn(base, sources, max(scale, 0.01)).arrays()))

    def loss(rng: np.random.Generator) -> Tensor:
        return _loss(network, drawn, redrawn, rng)

    fit([network], loss, replace(PLAN, steps=round(PLAN.steps * scale)), work / "probes.pt")
    return Probes(network.eval().requires_grad_(False))


def _redrawn(base: Path, sources: Path, scale: float) -> Redrawn:
    redrawer = load_redrawer(base, sources)
    pools = (
        (redraw_pool, _REDRAWN, 6),
        (composed_pool, _COMPOSED, 7),
        (half_neon_pool, _HALF_NEON, 8),
        (repainted_pool, _REPAINTED, 9),
        (incomplete_pool, _INCOMPLETE, 10),
        (hat_pool, _HATS, 11),
    )
    return joined([pool(round(count * scale), seed, redrawer) for pool, count, seed in pools])


def _kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The arrays of a file, which is made first if it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **make())
    with np.load(path) as arrays:
        return dict(arrays)


@dataclass(frozen=True)
class _Drawn:
    """A batch of drawings and what they show; objects count where ``intact``, colours where they are ``clear``, too."""

    images: Tensor
    traits: Tensor
    objects: Tensor
    colours: Tensor
    background: Tensor
    intact: Tensor
    clear: Tensor


def _loss(network: ProbeNetwork, drawn: Pool, redrawn: Redrawn, rng: np.random.Generator) -> Tensor:
    """Cross-entropy of every head on a batch of drawings, and of the traits on a batch of redrawn ones.

    Of a trait of which a range is known, the nearest amount of that range is wanted: within it there is no gradient. Of a texture the
    labels say whether it is there; how plainly it shows, is measured in the picture as the network sees it.
    """
    batch = _drawn_batch(drawn, rng)
    rows = rng.integers(len(redrawn), size=_BATCH_REDRAWN)
    images = torch.cat([batch.images, soften(to_tensor(redrawn.pictures[rows]), rng)])
    logits = network(images.contiguous(memory_format=torch.channels_last))
    seen = torch.ones(len(images), len(TRAITS))
    seen[:, _TEXTURES] = visible(images)
    least, most = (torch.cat([batch.traits, torch.from_numpy(bound[rows])]) * seen for bound in (redrawn.least, redrawn.most))
    traits = logits[:, : len(TRAITS)]
    objects, colours, background = torch.split(logits[:_BATCH, len(TRAITS) :], HEADS[1:], dim=1)
    return (
        5 * F.binary_cross_entropy_with_logits(traits, traits.detach().sigmoid().clamp(least, most))
        + _entropy(objects, batch.objects, batch.intact[:, None])
        + _entropy(colours, batch.colours, batch.clear[:, None])
        + 0.3 * F.cross_entropy(background, batch.background)
    )


def _entropy(logits: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
    """Mean binary cross-entropy where it counts, which may be nowhere in a batch."""
    counted = counted.expand_as(logits)
    return (F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * counted).sum() / counted.sum().clamp(min=1)


def _drawn_batch(pool: Pool, rng: np.random.Generator) -> _Drawn:
    """Drawings and cross-fades, many of them recoloured or damaged, all over or only where the two drawings of a pair differ."""
    rows = rng.integers(len(pool), size=_BATCH)
    share, amount = _fades(pool.blend[rows], rng)
    first, second = (to_tensor(pool.pictures[rows, i]) for i in (0, 1))
    local = torch.from_numpy((pool.blend[rows] == 1) & (rng.random(_BATCH) < 0.6))
    region = changed_region(first, second)
    faded = recolour(first + (second - first) * share, region * local[:, None, None, None], rng)
    images, left = damage(faded, torch.where(local[:, None, None, None], region, torch.ones_like(region)), rng)
    traits, objects, colours = (_between(a[rows], amount) for a in (pool.traits, pool.objects, pool.colours))
    even = torch.from_numpy(pool.blend[rows] == 2) & (share.amax(dim=(1, 2, 3)) == share.amin(dim=(1, 2, 3))) & (amount > 0) & (amount < 1)
    here = torch.from_numpy(pool.traits[rows][:, :, _TEXTURES].max(axis=1))
    traits[:, _TEXTURES] = torch.where(even[:, None], here, traits[:, _TEXTURES])
    left[:, _TEXTURES] = 1
    changed = torch.from_numpy(pool.traits[rows, 0] != pool.traits[rows, 1])
    intact = (left == 1).all(dim=1)
    return _Drawn(
        images=soften(smear(images, rng), rng),
        traits=traits * torch.where(changed | ~local[:, None], left, torch.ones_like(left)),
        objects=objects,
        colours=colours,
        background=torch.from_numpy(pool.background[rows, (amount > 0.5).long().numpy()]),
        intact=intact,
        clear=intact & ((amount == 0) & torch.from_numpy(pool.plain[rows, 0]) | (amount == 1) & torch.from_numpy(pool.plain[rows, 1])),
    )


def _fades(blend: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Shares of the second drawing, (n, 1, 64, 64), and their means over the picture, (n,).

    A third of the pairs each gives the first drawing, the second, and, where that has a meaning, a fade between them: even,
    or, for styles, from one side of the picture to the other.
    """
    n = len(blend)
    faded = (rng.random(n) < 0.34) & (blend > 0)
    even = np.where(faded, rng.random(n), rng.integers(0, 2, n)).astype(np.float32)
    angle, offset, width = rng.uniform(0, 2 * np.pi, n), rng.uniform(-0.5, 0.5, n), rng.uniform(0.02, 0.3, n)
    y, x = np.mgrid[-0.5:0.5:64j, -0.5:0.5:64j]
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    sided = 1 / (1 + np.exp((offset[:, None, None] - along) / width[:, None, None]))
    use = (faded & (blend == 2) & (rng.random(n) < 0.4))[:, None, None]
    share = torch.from_numpy(np.where(use, sided, even[:, None, None]).astype(np.float32))
    return share[:, None], share.mean(dim=(1, 2))


def _between(values: np.ndarray, amount: Tensor) -> Tensor:
    first, second = torch.from_numpy(values).unbind(dim=1)
    return first + (second - first) * amount[:, None]
