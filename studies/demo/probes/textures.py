"""Textures: how plainly a picture shows the mosaic's grid and the pencil's strokes, whatever it is a picture of.

Both repeat every four pixels, the grid along rows and columns, the strokes along the diagonals, so how strong they are anywhere is the
amplitude of the brightness at that one frequency around there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from studies.demo.drawing.softening import blur

TEXTURED = ("mosaic", "pencil")
"""Styles that are textures, in order."""

_PERIOD = 4
_LUMA = (0.299, 0.587, 0.114)
_COARSER, _AROUND = 2.0, 3.0
# Parts of a scene are free of strokes, or as light as the grid's lines: what the plainest tenth of the picture shows, counts.
_PLAINEST = 0.9
# Amplitudes from which on an observer sees a texture in full, and how an observer's impression grows up to there.
_FULL = {"mosaic": 0.1, "pencil": 0.13}
_GROWTH = {"mosaic": 1.0, "pencil": 0.7}
# Rows and columns of lines repeat along the diagonals, too.
_OF_A_GRID = 0.5


def visible(images: Tensor) -> Tensor:
    """How plainly each of ``TEXTURED`` shows, where it is drawn: 0 not at all, 1 as an observer sees it in full.

    Args:
        images: (n, 3, h, w) in [-1, 1].

    Returns:
        (n, 2) in [0, 1].
    """
    down, across, rising, falling = amplitudes(images)
    grid = torch.minimum(down, across)
    strokes = (torch.maximum(rising, falling) - _OF_A_GRID * grid).clamp(min=0)
    plain = [torch.quantile(a.flatten(1), _PLAINEST, dim=1) for a in (grid, strokes)]
    return torch.stack([(a / _FULL[name]).clamp(0, 1) ** _GROWTH[name] for name, a in zip(TEXTURED, plain, strict=True)], dim=1)


def amplitudes(images: Tensor) -> Tensor:
    """Local amplitudes of the brightness, of which 1 is white, at four pixels a period.

    Args:
        images: (n, 3, h, w) in [-1, 1].

    Returns:
        (4, n, h, w): down, across, along the rising and along the falling diagonal.
    """
    grey = brightness(images)
    fine = grey - blur(grey, _COARSER)
    y, x = torch.meshgrid(*(torch.arange(size).to(images) for size in images.shape[-2:]), indexing="ij")
    phases = torch.stack([y, x, x + y, x - y]) * (2 * math.pi / _PERIOD)
    waves = torch.cat([phases.cos(), phases.sin()])[None]
    cos, sin = blur(fine * waves, _AROUND).chunk(2, dim=1)
    return (2 * (cos.square() + sin.square()).sqrt()).transpose(0, 1)


def brightness(images: Tensor) -> Tensor:
    """Brightness (n, 1, h, w) in [0, 1] of pictures (n, 3, h, w) in [-1, 1]."""
    return (images * torch.tensor(_LUMA).to(images)[:, None, None]).sum(dim=1, keepdim=True) / 2 + 0.5
