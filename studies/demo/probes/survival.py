"""Survival: how much of what a drawing shows is left in a picture that was made of it, measured against the same drawing without it.

What a thing is, shows in where its edges lie, whatever their colour and contrast: their correlation with the edges of the drawing, between
that of the drawing without the thing (0) and of the drawing itself (1). What a style is, shows in the pixels: the share of the difference
that it makes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from studies.demo.drawing.damage import changed_region
from studies.demo.drawing.softening import blur

_WINDOW = 17
# A thing that is drawn again moves and grows a little: it is looked for at these shifts in pixels, and at these sizes.
_SHIFT = 4
_SIZES = (0.88, 1.0, 1.13)


def thing_survival(pictures: Tensor, without: Tensor, drawn: Tensor, sigma: float) -> Tensor:
    """How much of a thing is left.

    Args:
        pictures: (n, 3, h, w) in [-1, 1], what was made of ``drawn``.
        without: the drawings without the thing.
        drawn: the drawings.
        sigma: pixels of blur before edges are looked for: 0.7 sees every line, 1.8 sees past a texture.

    Returns:
        (n,) in [0, 1].
    """
    region = changed_region(without, drawn)
    goal = edges(drawn, sigma)
    least, here = (
        torch.stack([_correlation(edges(_sized(x, s), sigma), goal, region) for s in _SIZES]).amax(0) for x in (without, pictures)
    )
    return ((here - least) / (1 - least).clamp(min=0.05)).clamp(0, 1)


def style_survival(pictures: Tensor, without: Tensor, drawn: Tensor, *, texture: bool) -> Tensor:
    """How much of a style is left, (n,) in [0, 1].

    Args:
        pictures: (n, 3, h, w) in [-1, 1], what was made of ``drawn``.
        without: the drawings without the style.
        drawn: the drawings.
        texture: the style is a texture: what is coarser than it does not count.
    """
    before, after, now = (x - blur(x, 2.0) if texture else blur(x, 1.0) for x in (without, drawn, pictures))
    change = after - before
    share = ((now - before) * change).sum(dim=(1, 2, 3)) / change.square().sum(dim=(1, 2, 3)).clamp(min=1e-6)
    return share.clamp(0, 1)


def edges(images: Tensor, sigma: float) -> Tensor:
    """Strength of the edges, over all colours, relative to what is usual around them, (n, 1, h, w)."""
    smooth = blur(images, sigma)
    across = F.pad(smooth[..., 2:] - smooth[..., :-2], (1, 1, 0, 0))
    down = F.pad(smooth[..., 2:, :] - smooth[..., :-2, :], (0, 0, 1, 1))
    strength = (across.square() + down.square()).sum(dim=1, keepdim=True).sqrt()
    around = F.avg_pool2d(strength, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)
    return strength / (around + 0.1 / sigma)


def _sized(images: Tensor, size: float) -> Tensor:
    """The pictures, larger or smaller around their middle."""
    if size == 1:
        return images
    scale = torch.eye(2, 3, device=images.device).expand(len(images), -1, -1) / size
    grid = F.affine_grid(scale, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _correlation(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Pearson's correlation of two maps under a weight, at the shift of the first one where it is highest, (n,)."""
    n = len(first)
    weight = weight / weight.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)
    around = F.pad(first, (_SHIFT,) * 4, mode="replicate").transpose(0, 1)

    def weighed(maps: Tensor, kernel: Tensor) -> Tensor:
        """Sums under a kernel at every shift, (n, shifts, shifts)."""
        return F.conv2d(maps, kernel, groups=n)[0]

    mean, square, product = weighed(around, weight), weighed(around.square(), weight), weighed(around, weight * second)
    own = (second * weight).sum(dim=(1, 2, 3))[:, None, None]
    spread = (second.square() * weight).sum(dim=(1, 2, 3))[:, None, None] - own.square()
    found = (product - mean * own) / ((square - mean.square()).clamp(min=1e-9) * spread.clamp(min=1e-9)).sqrt()
    return found.flatten(1).amax(dim=1)
