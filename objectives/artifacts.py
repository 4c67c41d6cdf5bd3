"""Artifacts: image damage in a merge, relative to what base and sources themselves show.

No-reference quality models say little about generated pictures, so nothing here claims to know what a good picture is. A
merge is compared with pictures of the same prompt and noise: it is suspicious when it leaves the range that base and sources
span (burned contrast, noise, flat grey, clipped colours), and only by as much as it leaves it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FLOOR = {"variation": 0.01, "detail": 0.01, "contrast": 0.02, "saturation": 0.02, "clipped": 0.03, "entropy": 0.15}
_BINS = 32
_FLAT = 0.01
_PIXELS = 1 << 22  # that are looked at together, in some eighty bytes each


@dataclass(frozen=True)
class Envelope:
    """What base and sources show, per statistic and prompt.

    Attributes:
        low, high: statistic → smallest and largest value over base and sources, (n,).
        spread: statistic → the unit in which leaving that range is counted.
    """

    low: dict[str, Tensor]
    high: dict[str, Tensor]
    spread: dict[str, float]


def image_statistics(images: Tensor, device: torch.device | None = None) -> dict[str, Tensor]:
    """Weight-free statistics of every picture.

    Args:
        images: uint8, (n, 3, height, width).
        device: computes; None computes where the pictures are.

    Returns:
        Name → (n,) float32, where the pictures are: ``variation`` total variation per pixel; ``detail`` mean absolute
        Laplacian; ``contrast`` RMS contrast of the luma; ``saturation`` mean (max − min) over channels; ``clipped`` share of
        values at 0 or 255; ``entropy`` of the luma histogram, bits.
    """
    few = max(1, _PIXELS // (images.shape[-2] * images.shape[-1]))
    measured = [_statistics(chunk.to(device or images.device)) for chunk in torch.split(images, few)]
    return {name: torch.cat([found[name] for found in measured]).to(images.device) for name in measured[0]}


def _statistics(images: Tensor) -> dict[str, Tensor]:
    floats = images.float() / 255
    n, _, height, width = floats.shape
    luma = 0.299 * floats[:, 0] + 0.587 * floats[:, 1] + 0.114 * floats[:, 2]
    laplacian = 4 * luma[:, 1:-1, 1:-1] - luma[:, :-2, 1:-1] - luma[:, 2:, 1:-1] - luma[:, 1:-1, :-2] - luma[:, 1:-1, 2:]
    bins = (luma * (_BINS - 1)).round().long().flatten(1)
    counts = torch.zeros(n, _BINS, device=images.device)
    share = counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.float32)) / (height * width)
    return {
        "variation": _total_variation(floats) / (3 * height * width),
        "detail": laplacian.abs().mean(dim=(1, 2)),
        "contrast": luma.flatten(1).std(dim=1),
        "saturation": (floats.amax(dim=1) - floats.amin(dim=1)).mean(dim=(1, 2)),
        "clipped": ((images == 0) | (images == 255)).float().mean(dim=(1, 2, 3)),
        "entropy": -(share * share.clamp(min=1e-9).log2()).sum(dim=1),
    }


def _total_variation(floats: Tensor) -> Tensor:
    """As torchmetrics' function of this name, whose import brings torchvision and transformers along; (n, c, h, w) → (n,)."""
    down, across = floats.diff(dim=-2), floats.diff(dim=-1)
    return down.abs().sum(dim=(1, 2, 3)) + across.abs().sum(dim=(1, 2, 3))


def envelope(references: list[Tensor], device: torch.device | None = None) -> Envelope:
    """The range spanned by reference picture sets, each uint8 (n, 3, height, width) over the same prompts and noise."""
    measured = [image_statistics(images, device) for images in references]
    low, high, spread = {}, {}, {}
    for name, floor in _FLOOR.items():
        values = torch.stack([m[name] for m in measured])
        low[name], high[name] = values.amin(dim=0), values.amax(dim=0)
        spread[name] = max(float(values.std()), floor)
    return Envelope(low, high, spread)


def artifact_level(images: Tensor, reference: Envelope, device: torch.device | None = None) -> tuple[float, dict[str, float]]:
    """How far a picture set leaves the references' range.

    Args:
        images: uint8, (n, 3, height, width), same prompts and noise as the references.
        reference: their envelope.
        device: computes; None computes where the pictures are.

    Returns:
        The level (0 = everything within the range; 1 = on average one spread outside in the worst statistic) and its parts:
        mean excess per statistic, and ``flat``, the share of pictures that lost all contrast.

    Raises:
        ValueError: not as many pictures as the references'.
    """
    measured = image_statistics(images, device)
    if len(images) != len(reference.low["contrast"]):
        raise ValueError(f"{len(images)} pictures do not match an envelope of {len(reference.low['contrast'])}")
    excess = {
        name: ((values - reference.high[name]).clamp(min=0) + (reference.low[name] - values).clamp(min=0)) / reference.spread[name]
        for name, values in measured.items()
    }
    parts = {name: float(values.mean()) for name, values in excess.items()}
    flat = (measured["contrast"] < _FLAT) & (reference.low["contrast"] >= _FLAT)
    parts["flat"] = float(flat.float().mean())
    level = float(torch.stack(list(excess.values())).amax(dim=0).mean()) + parts["flat"]
    return level, parts
