"""The embedder: an image model that converts pictures to vectors whose differences measure visual differences.

The model's final embedding is not used, because a style dominates it. The features of the model's stages are compared at each
position, as in LPIPS (Zhang et al. 2018, https://arxiv.org/abs/1801.03924, equation 1): features of unit length at every
position of every stage. Compared pictures start from identical noise, so their positions correspond. The features' mean over
the picture, which carries most of a style (Huang and Belongie 2017, https://arxiv.org/abs/1703.06868), is subtracted first and
kept as a separate part. Local differences then have equal weight in a repainted picture and in any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision.transforms.v2.functional as vision
from torch import Tensor, nn
from torch.nn import functional as F

_STAGES, _GRID = 4, 8


@dataclass(frozen=True)
class Preparation:
    """How a model wants its pictures.

    Attributes:
        size: width and height, in pixels.
        mean, std: mean and standard deviation of each channel, which values in [0, 1] are normalised with.
        interpolation: method of resizing, by its name in torchvision.
    """

    size: int
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: str


class Embedder(nn.Module):
    """An image tower with its preparation, on tensors of square pictures.

    Stages are the tower's blocks after each quarter of its depth; a feature map of more than 8 × 8 positions is averaged down to 8 × 8.

    Args:
        tower: image model of open_clip or timm; its ``forward_intermediates`` returns the feature maps of its blocks, (n, c, h, w).
        preparation: how the model wants its pictures.
        name: name or path that the model was loaded from, for records.
        batch: number of pictures per forward pass.
    """

    tower: Any  # the towers of both packages have no common type with forward_intermediates
    mean: Tensor
    std: Tensor

    def __init__(self, tower: nn.Module, preparation: Preparation, name: str, batch: int = 64) -> None:
        super().__init__()
        self.tower, self.name, self.batch = tower.eval().requires_grad_(False), name, batch
        self.preparation = preparation
        device = next(tower.parameters()).device
        self.register_buffer("mean", torch.tensor(preparation.mean, device=device)[:, None, None])
        self.register_buffer("std", torch.tensor(preparation.std, device=device)[:, None, None])

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.mean.device

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Embeds pictures.

        Args:
            images: pictures, uint8, (n, 3, height, width).

        Returns:
            Unit vectors, float32, (n, d), on the CPU. Every stage contributes an equal part of the squared length: half of it for the
            mean and half for the positions, in equal parts.
        """
        return torch.cat([self._embed(chunk) for chunk in torch.split(images, self.batch)])

    def _embed(self, images: Tensor) -> Tensor:
        floats = images.to(self.device).float() / 255
        size = self.preparation.size
        if floats.shape[-2:] != (size, size):
            method = vision.InterpolationMode(self.preparation.interpolation)
            floats = vision.resize(floats, [size], interpolation=method, antialias=True)
            floats = vision.center_crop(floats.clamp(0, 1), [size, size])
        prepared = (floats - self.mean) / self.std
        found = self.tower.forward_intermediates(prepared, intermediates_only=True)
        maps = found["image_intermediates"] if isinstance(found, dict) else found
        return torch.cat([_places(maps[i]) / _STAGES**0.5 for i in _stages(len(maps))], dim=1).cpu()


def _stages(blocks: int) -> list[int]:
    """Returns the index of the last block of every quarter."""
    return [math.ceil(blocks * part / _STAGES) - 1 for part in range(1, _STAGES + 1)]


def _places(features: Tensor) -> Tensor:
    """Returns a feature map (n, c, h, w) as unit vectors (n, d): direction of its mean, and of the deviation from it per position."""
    height, width = (min(_GRID, length) for length in features.shape[-2:])
    places = F.adaptive_avg_pool2d(features.float(), (height, width)).flatten(2)
    mean = places.mean(dim=2, keepdim=True)
    differing = F.normalize(places - mean, dim=1) / math.sqrt(height * width)
    return torch.cat([F.normalize(mean, dim=1), differing], dim=2).flatten(1) / math.sqrt(2)
