"""Damage: pictures that lose their shapes, and how much of each trait is left to be seen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from studies.demo.drawing.softening import blur

# Blur (sigma in pixels) and warp (standard deviation of the displacement in pixels) at which 1/e of a trait is left.
_BLUR = {"neon": 7.0, "mosaic": 1.9, "pencil": 1.9, "robot": 4.5, "octopus": 5.0, "owl": 5.0, "hat": 3.2}
_WARP = {"neon": 12.0, "mosaic": 7.0, "pencil": 7.0, "robot": 4.5, "octopus": 5.0, "owl": 5.0, "hat": 3.5}
_CHUNK = 8
_CELLS = 6


def damage(images: Tensor, region: Tensor, rng: np.random.Generator, share: float = 0.3) -> tuple[Tensor, Tensor]:
    """Blur and warp a share of the pictures, inside a region.

    Args:
        images: (n, 3, h, w) in [-1, 1].
        region: (n, 1, h, w) in [0, 1], where the damage is done.
        rng: decides how much; it is shared by eight neighbours in the batch.
        share: share of the pictures that are changed, 0 to 1.

    Returns:
        Pictures of the same shape and range, and what is left of each trait, in the order of ``_BLUR``, (n, 7).
    """
    parts = [_damage(*chunk, rng, share) for chunk in zip(torch.split(images, _CHUNK), torch.split(region, _CHUNK), strict=True)]
    return torch.cat([images for images, _ in parts]), torch.cat([left for _, left in parts])


def _damage(images: Tensor, region: Tensor, rng: np.random.Generator, share: float) -> tuple[Tensor, Tensor]:
    if rng.random() >= share:
        return images, torch.ones(len(images), len(_BLUR), device=images.device)
    kind = rng.random()
    sigma = float(rng.uniform(0.8, 6) if kind < 0.6 else 0)
    spread = float(rng.uniform(1, 9) if kind > 0.4 else 0)
    worse = warp(images, spread, rng) if spread else images
    worse = blur(worse, sigma) if sigma else worse
    left = torch.tensor([np.exp(-((sigma / b) ** 2) - (spread / w) ** 2) for b, w in zip(_BLUR.values(), _WARP.values(), strict=True)])
    return images + (worse - images) * region, left.float().to(images.device).expand(len(images), -1)


def recolour(images: Tensor, region: Tensor, rng: np.random.Generator, share: float = 0.3) -> Tensor:
    """A share of the pictures in other hues, darker or paler inside a region, as a style repaints what it draws.

    Args:
        images: (n, 3, h, w) in [-1, 1].
        region: (n, 1, h, w) in [0, 1].
        rng: decides how, for every picture by itself.
        share: share of the pictures that are changed, 0 to 1.

    Returns:
        Pictures of the same shape and range.
    """
    n = len(images)
    angle = rng.uniform(-np.pi, np.pi, n) * rng.choice([0.15, 1.0], n)
    gain, vivid, lift = rng.uniform(0.35, 1.1, n), rng.uniform(0.3, 1.3, n), rng.uniform(-0.5, 0.3, n)
    # A turn around the grey axis, see Rodrigues' formula, keeps the brightness.
    cos, third, cross = np.cos(angle)[:, None, None], 1 / 3, np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = cos * (np.eye(3) - third) + third + np.sin(angle)[:, None, None] * cross
    chosen = torch.from_numpy((rng.random(n) < share).astype(np.float32)).to(images)[:, None, None, None]
    turned = torch.einsum("nij,njhw->nihw", torch.from_numpy(turn).to(images), images)
    grey = turned.mean(dim=1, keepdim=True)
    factor, colour, up = (torch.from_numpy(v).to(images)[:, None, None, None] for v in (gain, vivid, lift))
    changed = ((turned - grey) * colour + grey) * factor + up
    return (images + (changed - images) * region * chosen).clamp(-1, 1)


def warp(images: Tensor, spread: float, rng: np.random.Generator) -> Tensor:
    """Every picture bent by a smooth random field whose displacements have a standard deviation of ``spread`` pixels."""
    n, _, height, width = images.shape
    coarse = torch.from_numpy(rng.normal(0, spread * 2 / height, (n, 2, _CELLS, _CELLS)).astype(np.float32)).to(images.device)
    field = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    grid = torch.stack([x, y]).to(images) + field
    return F.grid_sample(images, grid.permute(0, 2, 3, 1), padding_mode="border", align_corners=True)


def changed_region(first: Tensor, second: Tensor) -> Tensor:
    """Where two pictures differ, and a little around it, with soft edges: (n, 1, h, w) in [0, 1]."""
    differs = ((first - second).abs().amax(dim=1, keepdim=True) > 0.1).to(first.dtype)
    return blur(F.max_pool2d(differs, 5, stride=1, padding=2), 1.0)
