"""Artifacts: image damage in a merge, relative to the pictures of the base and the sources.

No-reference quality models are unreliable on generated pictures, so no absolute quality is measured. A merge is compared with
pictures of the base and the sources for identical prompts and noise. Its level is the amount by which it leaves the range that these
span (burned contrast, noise, flat grey, clipped colours).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.objective import Baselines, Objective, Outcome, Pictures

HALVING_LEVEL = 8.0
_FLOOR = {"variation": 0.01, "detail": 0.01, "sharpness": 0.02, "contrast": 0.02, "saturation": 0.02, "clipped": 0.03, "entropy": 0.15}
_BINS = 32
_FAINT = 5e-3  # mean gradient, added so that the sharpness of a flat picture is 0
_FLAT = 0.01
_PIXELS = 1 << 22  # pixels per batch, at about eighty bytes each


@dataclass(frozen=True)
class Envelope:
    """Range of the picture statistics over base and sources, per statistic and prompt.

    Attributes:
        low, high: statistic name → smallest and largest value over base and sources, (n,).
        spread: statistic name → unit in which the distance from the range is measured: the standard deviation over the prompts of one
            picture set, as the root of the mean variance of all sets, but not below a least value.
    """

    low: dict[str, Tensor]
    high: dict[str, Tensor]
    spread: dict[str, float]


@dataclass(frozen=True)
class ArtifactLevel:
    """Measurement of one candidate.

    Attributes:
        level: artifact level, at least 0, as returned by ``artifact_level``.
        parts: parts of the level by name.
    """

    level: float
    parts: dict[str, float]


class ArtifactObjective(Objective[Envelope, ArtifactLevel]):
    """Image damage that neither base nor sources show; it discounts the score by the factor ``soundness``.

    The outcome has the value ``level`` and its parts. The level is that of all prompts in every resample, so that the intervals of the
    confirmation do not include its uncertainty.

    Example:
        >>> noise = torch.randint(256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        >>> flat = torch.full_like(noise, 128)
        >>> objective, asked = ArtifactObjective(), torch.tensor([0, 1])
        >>> envelope = objective.reference(Baselines(Pictures(flat), (Pictures(flat), Pictures(flat)), asked, asked))
        >>> [round(float(objective.compare(objective.measure(Pictures(x), envelope), envelope).factor), 2) for x in (flat, noise)]
        [1.0, 0.09]
    """

    name = "artifacts"
    version = 2

    def reference(self, baselines: Baselines) -> Envelope:
        """Returns the range that the pictures of base and sources span."""
        return envelope([pictures.images for pictures in baselines.all], baselines.alone[0].device)

    def measure(self, pictures: Pictures, reference: Envelope) -> ArtifactLevel:
        """Returns the artifact level of a candidate."""
        return ArtifactLevel(*artifact_level(pictures.images, reference, pictures.device))

    def compare(self, measurement: ArtifactLevel, reference: Envelope, counts: Tensor | None = None) -> Outcome:
        """Returns factor, level and parts, float64, each ()."""
        values = {"level": measurement.level} | measurement.parts
        found = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
        return Outcome(factor=torch.tensor(soundness(measurement.level), dtype=torch.float64), values=found)


def soundness(level: float) -> float:
    """Returns the factor in (0, 1] that an artifact level leaves of the score: 1 at level 0, 0.5 at ``HALVING_LEVEL``.

    It is a factor and not a subtracted penalty, so that clean merges with low shares do not overtake merges with higher shares. There is no
    tolerance level without penalty, because the search would find merges just below it.

    Args:
        level: artifact level, at least 0.

    Example:
        >>> soundness(0.0), soundness(8.0)
        (1.0, 0.5)
    """
    return HALVING_LEVEL / (HALVING_LEVEL + level)


def image_statistics(images: Tensor, device: torch.device | None = None) -> dict[str, Tensor]:
    """Returns statistics of every picture that need no model weights.

    Args:
        images: pictures, uint8, (n, 3, height, width).
        device: device for the computation; None uses the device of the pictures.

    Returns:
        Statistic name → (n,) float32, on the device of the pictures: ``variation`` total variation per pixel; ``detail`` mean absolute
        Laplacian of the luma; ``sharpness`` detail relative to the luma's mean gradient; ``contrast`` RMS contrast of the luma;
        ``saturation`` mean (max − min) over channels; ``clipped`` share of values at 0 or 255; ``entropy`` of the luma histogram, bits.

    Example:
        >>> white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
        >>> {name: float(values[0]) + 0.0 for name, values in image_statistics(white).items()}
        {'variation': 0.0, 'detail': 0.0, 'sharpness': 0.0, 'contrast': 0.0, 'saturation': 0.0, 'clipped': 1.0, 'entropy': 0.0}
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
    detail = laplacian.abs().mean(dim=(1, 2))
    return {
        "variation": _total_variation(floats) / (3 * height * width),
        "detail": detail,
        "sharpness": detail / (_gradient(luma) + _FAINT),
        "contrast": luma.flatten(1).std(dim=1),
        "saturation": (floats.amax(dim=1) - floats.amin(dim=1)).mean(dim=(1, 2)),
        "clipped": ((images == 0) | (images == 255)).float().mean(dim=(1, 2, 3)),
        "entropy": -(share * share.clamp(min=1e-9).log2()).sum(dim=1),
    }


def _total_variation(floats: Tensor) -> Tensor:
    """Returns the total variation of every picture, (n, c, h, w) → (n,), as in torchmetrics, but without importing torchvision."""
    down, across = floats.diff(dim=-2), floats.diff(dim=-1)
    return down.abs().sum(dim=(1, 2, 3)) + across.abs().sum(dim=(1, 2, 3))


def _gradient(luma: Tensor) -> Tensor:
    """Returns the mean absolute difference of neighbouring pixels, downwards plus across, (n, h, w) → (n,)."""
    return luma.diff(dim=-2).abs().mean(dim=(1, 2)) + luma.diff(dim=-1).abs().mean(dim=(1, 2))


def envelope(references: list[Tensor], device: torch.device | None = None) -> Envelope:
    """Returns the range that the statistics of reference pictures span.

    Args:
        references: picture sets, each uint8, (n, 3, height, width), with identical prompts and noise.
        device: device for the computation; None uses the device of the pictures.

    Example:
        >>> black, white = (torch.full((1, 3, 8, 8), value, dtype=torch.uint8) for value in (0, 255))
        >>> found = envelope([black, white])
        >>> found.low["clipped"].tolist(), found.high["saturation"].tolist()
        ([1.0], [0.0])
    """
    measured = [image_statistics(images, device) for images in references]
    low, high, spread = {}, {}, {}
    for name, floor in _FLOOR.items():
        values = torch.stack([m[name] for m in measured])
        low[name], high[name] = values.amin(dim=0), values.amax(dim=0)
        spread[name] = max(float(values.var(dim=1, correction=0).mean().sqrt()), floor)
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

    Example:
        >>> white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
        >>> level, parts = artifact_level(white, envelope([white, white]))
        >>> level, parts["flat"]
        (0.0, 0.0)
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
