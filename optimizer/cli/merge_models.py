"""``optimize merge --kind model``: two or more full models merged into one, without a search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import Progress

from optimizer.adapters import clean_name
from optimizer.checkpoints.model import Model
from optimizer.errors import UsageError
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.model_merge_plan import model_job
from optimizer.merging.models import Job, ModelMerge, merge_models, merge_record, merge_record_path

_LISTED = 10
_LONGEST = 200  # characters of all models' names in that of a file, of which file systems take 255


def merge_full(recipe: Path | None, options: MergeOptions, errors: Console, *, as_json: bool) -> int:
    """Merge full models, and say what was done.

    Raises:
        UsageError: an option makes no sense for models.
        BaseModelError: a model cannot be read, or they do not fit each other.
    """
    job = model_job(recipe, options)
    place = _place(options, job.models, job)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("merging…")
        found = merge_models(job, place, tick=lambda done, total: progress.update(bar, completed=done, total=total))
    facts = _facts(job, found)
    merge_record_path(place).write_text(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True), encoding="utf-8")
    _tell(job, found, facts, as_json)
    return 0


def _place(options: MergeOptions, models: Sequence[Model], job: Job) -> Path:
    """Where the result goes: as named, or the names of the models, in a directory that is there. It is of the first model's kind."""
    suffix, what = models[0].suffix, "file" if models[0].suffix else "folder"
    each = min(64, _LONGEST // len(models))
    name = "-".join(clean_name(model.name, each) for model in models) + f"_{job.formula or (job.recipe.method if job.recipe else '')}"
    out = options.out or Path(name)
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


def _facts(job: Job, found: ModelMerge) -> dict[str, Any]:
    """The merge record of the job, and what came of it."""
    return merge_record(job) | {"tensors": found.tensors, "apart": list(found.apart)}


def _tell(job: Job, found: ModelMerge, facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts | {"file" if job.models[0].suffix else "folder": str(found.place)}))
        return
    console = Console(highlight=False)
    names = ", ".join(entry["name"] for entry in facts["models"])
    how = f"{job.formula} at α = {job.alpha:g}" if job.formula else _told(facts)
    console.print(f"{names}: {how}, {found.tensors} tensors", soft_wrap=True, markup=False)
    for line in found.apart[:_LISTED]:
        console.print(f"not merged: {line}", soft_wrap=True, markup=False)
    if len(found.apart) > _LISTED:
        console.print(
            f"not merged: {len(found.apart) - _LISTED} more, see {merge_record_path(found.place).name}", soft_wrap=True, markup=False
        )
    console.print(f"model   {found.place}", soft_wrap=True, markup=False)


def _told(facts: dict[str, Any]) -> str:
    weights = " : ".join(f"{weight:g}" for weight in facts["recipe"]["weights"])
    return f"{facts['method']} at {weights}" + (f" over {facts['base']['name']}" if "base" in facts else "")
