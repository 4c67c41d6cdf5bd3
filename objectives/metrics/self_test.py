"""Self-test: calls a metric on pictures of noise, so that one that cannot be used is found before anything is drawn."""

from __future__ import annotations

import torch

from objectives.metrics.objective import MetricObjective
from objectives.objective import JOINT, Baselines, Pictures


def self_test(metric: MetricObjective, size: tuple[int, int], sources: int, device: torch.device, *, based: bool = True) -> None:
    """Measures pictures of noise by a metric.

    Args:
        metric: the metric.
        size: height and width of the pictures of the run, which not every metric accepts.
        sources: number of sources.
        device: device of the run.
        based: whether the run has a base.

    Raises:
        MetricError: the metric fails, or a value is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    asked = torch.tensor([*range(sources), *([JOINT] * 2)])

    def noise() -> Pictures:
        return Pictures(torch.randint(256, (len(asked), 3, *size), generator=generator, dtype=torch.uint8), device=device)

    prompts = tuple(f"a picture of noise, {index}" for index in range(len(asked)))
    baselines = Baselines(
        noise() if based else None, tuple(noise() for _ in range(sources)), asked, torch.arange(len(asked)), prompts=prompts
    )
    reference = metric.reference(baselines)
    metric.compare(metric.measure(noise(), reference), reference)
