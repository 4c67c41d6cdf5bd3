"""Similarity: how alike a candidate's pictures and those of the source that they ask for are in structure."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.objective import Baselines, Objective, Outcome, Pictures, weighted_mean

_WINDOW = 11  # pictures that are smaller than SSIM's window have none
_PIXELS = 1 << 21  # pixels per batch, at about two hundred bytes each


@dataclass(frozen=True)
class Own:
    """Pictures of each source alone on the prompts that ask for it alone.

    Attributes:
        images: the picture of the source that each prompt asks for, uint8, (n, 3, height, width); any, for joint prompts.
        asked: index of the source that each prompt asks for, or ``JOINT`` for all of them, (n,).
        sources: number of sources.
    """

    images: Tensor
    asked: Tensor
    sources: int


class SimilarityObjective(Objective[Own, Tensor]):
    """Structural similarity (SSIM; Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861) to each source alone on its own prompts.

    Candidate and source draw the same prompt from the same noise. The outcome has the value ``ssim`` of each source: 1 if the candidate
    draws the source's own pictures, near 0 if their structures have nothing in common; NaN for a source without own prompts. It tells a
    merge that keeps a source's composition from one that keeps its look only, and changes no score.

    Example:
        >>> noise = torch.randint(256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        >>> objective, asked = SimilarityObjective(), torch.tensor([0, 1])
        >>> reference = objective.reference(Baselines(None, (Pictures(noise), Pictures(noise.flip(3))), asked, asked))
        >>> outcome = objective.compare(objective.measure(Pictures(noise), reference), reference)
        >>> [round(value, 1) + 0.0 for value in outcome.by_source["ssim"].tolist()]
        [1.0, 0.0]
    """

    name = "similarity"
    version = 1
    column = True

    def reference(self, baselines: Baselines) -> Own:
        """Returns the pictures of the sources that the prompts ask for."""
        alone = torch.stack([pictures.images for pictures in baselines.alone])
        asked = baselines.asked.to(alone.device)
        return Own(alone[asked.clamp(min=0), torch.arange(len(asked), device=alone.device)], baselines.asked, len(alone))

    def measure(self, pictures: Pictures, reference: Own) -> Tensor:
        """Returns the similarity of each picture to that of the source alone, float64, (n,); 0 for joint prompts."""
        found = torch.zeros(len(reference.asked), dtype=torch.float64)
        own = (reference.asked >= 0).nonzero()[:, 0]
        if min(pictures.images.shape[-2:]) < _WINDOW:
            return torch.full_like(found, torch.nan)
        few = max(1, _PIXELS // (pictures.images.shape[-2] * pictures.images.shape[-1]))
        for indices in torch.split(own, few) if len(own) else ():
            here = indices.to(pictures.images.device)
            found[indices] = _ssim(pictures.images[here], reference.images[here], pictures.device)
        return found

    def compare(self, measurement: Tensor, reference: Own, counts: Tensor | None = None) -> Outcome:
        """Returns the mean similarity to each source, float64, (..., k)."""
        weights = torch.ones(len(measurement)) if counts is None else counts
        each = [weighted_mean(measurement, weights * (reference.asked == source)) for source in range(reference.sources)]
        return Outcome(by_source={"ssim": torch.stack(each, dim=-1)})


def _ssim(images: Tensor, targets: Tensor, device: torch.device) -> Tensor:
    """Returns the similarity of each picture to its target, float64, (n,), on the CPU."""
    # Imported here because torchmetrics imports torchvision and transformers, which takes seconds and a fake base does not need.
    from torchmetrics.functional.image import structural_similarity_index_measure

    preds, target = images.to(device).float() / 255, targets.to(device).float() / 255
    found = structural_similarity_index_measure(preds, target, data_range=1.0, reduction="none")
    assert isinstance(found, Tensor)
    return found.double().reshape(-1).cpu()
