"""Darkness: how far a picture is dark enough to be drawn in neon, whatever glows in it."""

from __future__ import annotations

import torch
from torch import Tensor

from studies.demo.probes.textures import brightness

# Brightness below which a place is dark, the share of dark places from which on a picture is dark enough, and what outlines that glow in
# a bright picture are worth.
_DARK, _ENOUGH, _BRIGHT = 0.25, 0.4, 0.3


def darkness(images: Tensor) -> Tensor:
    """What glowing outlines are worth in each picture: 1 where enough of it is dark, 0.3 where nothing is.

    Args:
        images: (n, 3, h, w) in [-1, 1].

    Returns:
        (n,) in [0.3, 1].
    """
    share = (brightness(images) < _DARK).to(images.dtype).mean(dim=(1, 2, 3))
    return _BRIGHT + (1 - _BRIGHT) * torch.clamp(share / _ENOUGH, max=1)
