"""Kernel distance: how far the embeddings of a candidate's pictures are from those of all references, as distributions."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from objectives.objective import EMBEDDINGS, Baselines, Objective, Outcome, Pictures

_SUBSETS = 20
_GAMMA = 1.0  # embeddings are unit vectors, so that their products need no scale


class KernelDistanceObjective(Objective[Tensor, float]):
    """Kernel distance (Bińkowski et al. 2018, https://arxiv.org/abs/1801.01401) between a candidate's pictures and all references.

    It is torchmetrics' ``KernelInceptionDistance`` with the run's own embeddings in place of those of Inception: the squared maximum mean
    discrepancy with the kernel (⟨x, y⟩ + 1)³, averaged over subsets of the references that have the size of the candidate's set. The
    subsets are always the same ones. The outcome has the value ``value``: about 0 if the candidate draws as the references do; unbiased, so
    that it may be negative, the more the fewer pictures there are. It changes no score, and it is not resampled.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> images = torch.zeros(8, 3, 8, 8, dtype=torch.uint8)
        >>> def pictures(shift):
        ...     vectors = torch.randn(8, 4, generator=generator) + torch.tensor([shift, 0.0, 0.0, 0.0])
        ...     return Pictures(images, {"embeddings": nn.functional.normalize(vectors, dim=1)})
        >>> objective, prompts = KernelDistanceObjective(), torch.arange(8) % 2
        >>> reference = objective.reference(Baselines(pictures(0.0), (pictures(0.0), pictures(0.0)), prompts, prompts))
        >>> near, far = (objective.compare(objective.measure(pictures(shift), reference), reference) for shift in (0.0, 5.0))
        >>> bool(far.values["value"] > 1 > abs(near.values["value"]))
        True
    """

    name = "kernel_distance"
    version = 1
    column = True
    needs = frozenset({EMBEDDINGS})

    def reference(self, baselines: Baselines) -> Tensor:
        """Returns the embeddings of the pictures of base and sources, (m, d)."""
        return torch.cat([_vectors(pictures) for pictures in baselines.all])

    def measure(self, pictures: Pictures, reference: Tensor) -> float:
        """Returns the kernel distance of a candidate."""
        vectors = _vectors(pictures)
        if len(vectors) < 2:
            return float("nan")  # the unbiased estimate needs two pictures
        metric = _kernel_inception_distance(len(vectors))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # which the subsets are drawn by; generators of devices are left alone
            metric.update(reference, real=True)
            metric.update(vectors, real=False)
            return float(metric.compute()[0])

    def compare(self, measurement: float, reference: Tensor, counts: Tensor | None = None) -> Outcome:
        """Returns the value, float64, ()."""
        return Outcome(values={"value": torch.tensor(measurement, dtype=torch.float64)})


def _vectors(pictures: Pictures) -> Tensor:
    return pictures.features[EMBEDDINGS].flatten(1).cpu()


def _kernel_inception_distance(pictures: int) -> Any:
    """Returns torchmetrics' metric on vectors."""
    # Imported here because torchmetrics imports torchvision and transformers, which takes seconds and a fake base does not need.
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the memory of large data sets
        return KernelInceptionDistance(feature=nn.Identity(), subsets=_SUBSETS, subset_size=pictures, gamma=_GAMMA)
