"""Merging of full models: each tensor is read, merged in fp32 and written before the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optimizer.checkpoints.model import Tick
from optimizer.merging.models.blend import Blend, Job


@dataclass(frozen=True)
class ModelMerge:
    """Result of a merge of full models.

    Attributes:
        place: path of the merged model, which is complete.
        tensors: number of merged tensors.
        apart: one-line description of each tensor that did not match and was taken from the first model.
    """

    place: Path
    tensors: int
    apart: tuple[str, ...]


def merge_models(job: Job, place: Path, *, tick: Tick | None = None) -> ModelMerge:
    """Merges models and writes a complete model in the file layout of the first one.

    Args:
        job: description of the merge.
        place: output path, which must not exist. It has a temporary name until it is complete.
        tick: called with the number of finished tensors and the total.

    Raises:
        RecipeError: the number of models does not match the formula, or α is out of range.
        BaseModelError: the models are incompatible; nothing was written.
    """
    blend = Blend(job)
    job.models[0].write(blend, place, dtype=job.dtype, tick=tick)
    return ModelMerge(place, blend.merged, tuple(blend.apart.values()))
