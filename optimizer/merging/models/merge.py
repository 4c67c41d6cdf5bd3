"""Merging full models: each tensor read, merged in fp32 and written before the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optimizer.checkpoints.model import Tick
from optimizer.merging.models.blend import Blend, Job


@dataclass(frozen=True)
class ModelMerge:
    """What was merged.

    Attributes:
        place: the result, a complete model.
        tensors: how many were merged.
        apart: those that do not match, one line each; they are the first model's.
    """

    place: Path
    tensors: int
    apart: tuple[str, ...]


def merge_models(job: Job, place: Path, *, tick: Tick | None = None) -> ModelMerge:
    """Merge and write a complete model, which lies on the disk as the first one does.

    Args:
        job: what to do.
        place: to be written; it must not exist. It has another name until it is complete.
        tick: told how many tensors of how many are done.

    Raises:
        RecipeError: the formula takes another number of models, or α is out of range.
        BaseModelError: the models do not fit each other; nothing was written.
    """
    blend = Blend(job)
    job.models[0].write(blend, place, dtype=job.dtype, tick=tick)
    return ModelMerge(place, blend.merged, tuple(blend.apart.values()))
