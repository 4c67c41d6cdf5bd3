"""Artifacts: image damage in a merge, relative to the pictures of the base and the sources.

No-reference quality models are unreliable on generated pictures, so no absolute quality is measured. A merge is compared with
pictures of the base and the sources for identical prompts and noise. Its level is the amount by which it leaves the range that these
span (burned contrast, noise, flat grey, clipped colours).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FLOOR = {"variation": 0.01, "detail": 0.01, "contrast": 0.02, "saturation": 0.02, "clipped": 0.03, "entropy": 0.15}
_BINS = 32
_FLAT = 0.01
_PIXELS = 1 << 22  # pixels per batch, at about eighty bytes each


@dataclass(frozen=True)
class Envelope:
    """Range of the picture statistics over base and sources, per statistic and prompt.

    Attributes:
        low, high: statistic name → smallest and largest value over base and sources, (n,).
        spread: statistic name → unit in which the distance from the range is measured.
    """

    low: dict[str, Tensor]
    high: dict[str, Tensor]
    spread: dict[str, float]


def image_statistics(images: Tensor, device: torch.device | None = None) -> dict[str, Tensor]:
    """Returns statistics of every picture that need no model weights.

    Args:
        images: pictures, uint8, (n, 3, height, width).
        device: device for the computation; None uses the device of the pictures.

    Returns:
        Statistic name → (n,) float32, on the device of the pictures: ``variation`` total variation per pixel; ``detail`` mean absolute
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
    """Returns the total variation of every picture, (n, c, h, w) → (n,), as in torchmetrics, but without importing torchvision."""
    down, across = floats.diff(dim=-2), floats.diff(dim=-1)
    return down.abs().sum(dim=(1, 2, 3)) + across.abs().sum(dim=(1, 2, 3))


def envelope(references: list[Tensor], device: torch.device | None = None) -> Envelope:
    """Returns the range spanned by reference picture sets, each uint8 (n, 3, height, width) with identical prompts and noise."""
    measured = [image_statistics(images, device) for images in references]
    low, high, spread = {}, {}, {}
    for name, floor in _FLOOR.items():
        values = torch.stack([m[name] for m in measured])
        low[name], high[name] = values.amin(dim=0), values.amax(dim=0)
        spread[name] = max(float(values.std()), floor)
    return Envelope(low, high, spread)


def artifact_level(images: Tensor, reference: Envelope, device: torch.device | None = None) -> tuple[float, dict[str, float]]:
    """Returns the artifact level of a picture set: its distance from the references' range.

    Args:
        images: pictures, uint8, (n, 3, height, width), for the references' prompts and noise.
        reference: range of the references' statistics.
        device: device for the computation; None uses the device of the pictures.

    Returns:
        The level (0 = all within the range; 1 = on average one spread outside in the worst statistic) and its parts:
        mean excess per statistic, and ``flat``, the share of pictures without contrast.

    Raises:
        ValueError: the number of pictures differs from that of the references.
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
