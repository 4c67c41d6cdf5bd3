"""Executing a merge of full models: writing the merged model, and beside it what it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from optimizer.adapters import clean_name
from optimizer.checkpoints.model import Tick
from optimizer.errors import UsageError
from optimizer.merging.models import Job, merge_models, merge_record, merge_record_path
from studies.atomic import write_text

_LONGEST = 200  # characters of all models' names in the name of a file; file systems allow 255


@dataclass(frozen=True)
class WrittenModel:
    """Result of an executed merge of full models.

    Attributes:
        place: path of the merged model.
        record: path of the ``merge.yaml`` file, from which the merge can be repeated.
        facts: content of that file.
        tensors: number of merged tensors.
        apart: one-line description of each tensor that did not match and was taken from the first model.
    """

    place: Path
    record: Path
    facts: dict[str, Any]
    tensors: int
    apart: tuple[str, ...]


def write_model_merge(job: Job, out: Path | None, *, tick: Tick | None = None) -> WrittenModel:
    """Merges full models, and writes the merged model and its ``merge.yaml``.

    Args:
        job: models, base and method.
        out: path of the merged model, or folder to write it to under the names of the models; None is the working directory.
        tick: called with the number of finished tensors and of all. An exception that it raises stops the merge and leaves no file.

    Raises:
        UsageError: the output path is taken, or its folder does not exist.
        RecipeError: the number of models does not match the formula, or α is out of range.
        BaseModelError: the models are incompatible.
    """
    place = output_place(job, out)
    found = merge_models(job, place, tick=tick)
    facts = merge_record(job) | {"tensors": found.tensors, "apart": list(found.apart)}
    beside = merge_record_path(place)
    write_text(beside, yaml.safe_dump(facts, sort_keys=False, allow_unicode=True))
    return WrittenModel(place, beside, facts, found.tensors, found.apart)


def output_place(job: Job, out: Path | None) -> Path:
    """Returns the path of the merged model, which is a file or a folder as the first model is.

    Raises:
        UsageError: the path is taken, of the other kind, or its folder does not exist.
    """
    models = job.models
    suffix, what = models[0].suffix, "file" if models[0].suffix else "folder"
    each = min(64, _LONGEST // len(models))
    name = "-".join(clean_name(model.name, each) for model in models) + f"_{job.formula or (job.recipe.method if job.recipe else '')}"
    out = out or Path(name)
    place = out / name if out.is_dir() and not (out / "model_index.json").is_file() else out
    if suffix and place.suffix != suffix:
        place = place.with_name(place.name + suffix)
    elif not suffix and place.suffix == ".safetensors":
        remedy = "name a folder, or a file first in --sources"
        raise UsageError("the first model is a folder, and so will be the result", where=f"--out {out}", remedy=remedy)
    for taken in (place, merge_record_path(place)):
        if taken.exists():
            raise UsageError("is there already", where=f"--out {taken}", remedy=f"name another {what}, or remove it")
    if not place.absolute().parent.is_dir():
        raise UsageError("the directory does not exist", where=f"--out {place.parent}", remedy="create it, or name another")
    return place
