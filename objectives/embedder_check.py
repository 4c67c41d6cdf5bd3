"""Check of a loaded embedder: that it tells pictures apart, and hardly sees a little grain."""

from __future__ import annotations

import torch
import torchvision.transforms.v2.functional as vision
from torch import Tensor

from objectives.embedder import Embedder
from objectives.errors import EmbedderError

_SIDE, _COUNT = 96, 3
_GRAIN, _NOISE = 2.0, 80.0  # standard deviations of 255


def check_embedder(embedder: Embedder) -> None:
    """Embeds drawings, the drawings with a little grain, and damaged ones.

    Weights that are missing in part, or overflow in a number format, show in vectors that are not finite, alike for all pictures, or moved
    as much by invisible grain as by damage.

    Raises:
        EmbedderError: a vector is not finite or not of length 1, or a drawing with a little grain is not nearer to the drawing than other
            drawings, noise, flat grey and strong colours are.
    """
    drawings = _drawings()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(drawings.shape, generator=generator)
    floats = drawings.float()
    damaged = {
        "noise": _pixels(floats + _NOISE * noise),
        "flat grey": torch.full_like(drawings, 128),
        "strong colours": vision.adjust_saturation(drawings, 4.0),
        "other drawings": drawings.roll(1, dims=0),
    }
    found = embedder(torch.cat([drawings, _pixels(floats + _GRAIN * noise), *damaged.values()])).split(_COUNT)
    lengths = torch.cat(found).norm(dim=1)
    if not bool(torch.isclose(lengths, torch.ones(()), atol=1e-3).all()):
        raise EmbedderError(_problem(embedder, f"its vectors have lengths from {float(lengths.min()):.3g} to {float(lengths.max()):.3g}"))
    whole, grained, *others = found
    near = (whole - grained).norm(dim=1)
    for kind, vectors in zip(damaged, others, strict=True):
        if bool((near >= (whole - vectors).norm(dim=1)).any()):
            raise EmbedderError(_problem(embedder, f"a little grain moves a drawing as far as {kind}"))


def _problem(embedder: Embedder, found: str) -> str:
    return f"{embedder.name}: the embedder does not tell pictures apart: {found} — its weights may be incomplete: get them again"


def _drawings() -> Tensor:
    """Returns discs of several colours and places before shaded backgrounds, uint8, (3, 3, 96, 96)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, _SIDE), torch.linspace(-1, 1, _SIDE), indexing="ij")
    backs = torch.tensor([[0.3, 0.5, 0.8], [0.7, 0.6, 0.4], [0.3, 0.6, 0.35]])
    discs = torch.tensor([[0.8, 0.3, 0.2], [0.2, 0.3, 0.6], [0.9, 0.8, 0.4]])
    shaded = backs[:, :, None, None] * (1 + 0.2 * y)
    places = [(x - (k - 1) * 0.4).square() + (y + (k - 1) * 0.3).square() < 0.25 for k in range(_COUNT)]
    return _pixels(255 * torch.where(torch.stack(places)[:, None], discs[:, :, None, None], shaded))


def _pixels(values: Tensor) -> Tensor:
    return values.clamp(0, 255).round().to(torch.uint8)
