"""Softening: what keeps a network trained on crisp drawings from minding the softness of generated pictures."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK = 8


def soften(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Each picture shifted a little, its colours changed a little, and then, more often than not, blurred or noisy.

    Args:
        images: (n, 3, h, w) in [-1, 1].
        rng: decides how; blur and shift are shared by eight neighbours in the batch.

    Returns:
        Pictures of the same shape and range.
    """
    return torch.cat([_soften(chunk, rng) for chunk in torch.split(images, _CHUNK)])


def _soften(images: Tensor, rng: np.random.Generator) -> Tensor:
    images = _recolour(_shift(images, rng), rng)
    kind = rng.random()
    if kind < 0.4:
        images = blur(images, float(rng.uniform(0.3, 1.1)))
    elif kind < 0.65:
        images = _rescale(images, float(rng.uniform(0.5, 0.95)))
    if rng.random() < 0.5:
        images = images + torch.randn_like(images) * float(rng.uniform(0.01, 0.08))
    return images.clamp(-1, 1)


def smear(images: Tensor, rng: np.random.Generator) -> Tensor:
    """What a weak decoder does: half of the pictures lose fine texture, a part of their colour, or both.

    Args:
        images: (n, 3, h, w) in [-1, 1].
        rng: decides how; the loss of texture is shared by eight neighbours in the batch.

    Returns:
        Pictures of the same shape and range.
    """
    return torch.cat([_smear(chunk, rng) for chunk in torch.split(images, _CHUNK)])


def _smear(images: Tensor, rng: np.random.Generator) -> Tensor:
    if rng.random() < 0.5:
        images = _tinted(_bled(images, rng), rng)
    if rng.random() < 0.35:
        images = blur(images, float(rng.uniform(0.8, 1.4)))
        images = images + (images - blur(images, 1.0)) * float(rng.uniform(0, 1.2))
    return images.clamp(-1, 1)


def _bled(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Colours weakened and spread over cells of two to eight pixels; the brightness stays sharp."""
    grey = images.mean(dim=1, keepdim=True)
    cells = F.avg_pool2d(images - grey, int(rng.choice([2, 4, 8])))
    return grey + F.interpolate(cells, size=images.shape[-2:], mode="bilinear") * float(rng.uniform(0.4, 1.1))


def _tinted(images: Tensor, rng: np.random.Generator) -> Tensor:
    """A smooth random tint that differs from place to place, stronger where the picture is colourful."""
    field = torch.from_numpy(rng.normal(0, 1, (len(images), 3, 5, 5))).to(images)
    field = field - field.mean(dim=1, keepdim=True)
    colourful = (images - images.mean(dim=1, keepdim=True)).abs().amax(dim=1, keepdim=True)
    return images + F.interpolate(field, size=images.shape[-2:], mode="bilinear") * colourful * float(rng.uniform(0, 0.6))


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (n, c, h, w) pictures; ``sigma`` in pixels, cut off at three of them."""
    reach = max(3, math.ceil(3 * sigma))
    taps = torch.exp(-torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device).square() / (2 * sigma**2))
    taps = (taps / taps.sum()).expand(images.shape[1], 1, 1, 2 * reach + 1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, taps, groups=images.shape[1]), taps.transpose(2, 3), groups=images.shape[1])


def _shift(images: Tensor, rng: np.random.Generator, most: int = 3) -> Tensor:
    height, width = images.shape[-2:]
    top, left = (int(v) for v in rng.integers(0, 2 * most + 1, 2))
    return F.pad(images, (most,) * 4, mode="replicate")[..., top : top + height, left : left + width]


def _recolour(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Contrast and brightness of each picture and each channel, and saturation of each picture."""
    n = len(images)
    gain = torch.from_numpy(rng.uniform(0.85, 1.12, (n, 1, 1, 1)) * rng.uniform(0.95, 1.05, (n, 3, 1, 1))).to(images)
    lift = torch.from_numpy(rng.uniform(-0.1, 0.1, (n, 1, 1, 1))).to(images)
    grey = images.mean(dim=1, keepdim=True)
    colourful = torch.from_numpy(rng.uniform(0.8, 1.15, (n, 1, 1, 1))).to(images)
    return ((images - grey) * colourful + grey) * gain + lift


def _rescale(images: Tensor, factor: float) -> Tensor:
    size = images.shape[-2:]
    small = F.interpolate(images, scale_factor=factor, mode="bilinear", antialias=True)
    return F.interpolate(small, size=size, mode="bilinear")
