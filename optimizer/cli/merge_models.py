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
from optimizer.cli.merge_options import MergeOptions
from optimizer.errors import UsageError
from optimizer.merging import METHODS, Recipe
from optimizer.merging.full import FORMULAS, Job, Model, ModelMerge, merge_models
from optimizer.rendering.open_model import open_model

_STORED = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}
_LORAS = ("blocks", "rank", "rank_energy", "target_mb", "prune", "dialect", "triggers", "allow_unknown")
_LISTED = 10
_LONGEST = 200  # characters of all models' names in that of a file, of which file systems take 255


def merge_full(recipe: Path | None, options: MergeOptions, errors: Console) -> int:
    """Merge full models, and say what was done.

    Raises:
        UsageError: an option makes no sense for models.
        BaseModelError: a model cannot be read, or they do not fit each other.
    """
    _refuse(recipe, options)
    models = tuple(map(open_model, options.sources))
    job = _job(models, options)
    place = _place(options, models, job)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("merging…")
        found = merge_models(job, place, tick=lambda done, total: progress.update(bar, completed=done, total=total))
    facts = _facts(job, found)
    _beside(place, models[0]).write_text(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True), encoding="utf-8")
    _tell(job, found, facts, options.json_)
    return 0


def _refuse(recipe: Path | None, options: MergeOptions) -> None:
    if recipe is not None:
        remedy = "name the models with --sources; merge.yaml in a merged model, or beside it, says how it was made"
        raise UsageError("recipes are for LoRAs", where=recipe, remedy=remedy)
    for name in _LORAS:
        if getattr(options, name):
            raise UsageError("is for LoRAs", where=f"--{name.replace('_', '-')}", remedy="leave it out")
    if not 2 <= len(options.sources) <= 5 and not options.force:
        raise UsageError(
            f"{len(options.sources)} given", where="--sources", remedy="give two to five models: diffusers folders or .safetensors files"
        )


def _job(models: tuple[Model, ...], options: MergeOptions) -> Job:
    method, dtype = options.method or ("linear" if options.base else "weighted_sum"), _STORED.get(options.dtype or "", "")
    if method in FORMULAS and not options.base:
        if options.weights:
            raise UsageError(f"{method} takes --alpha", where="--weights", remedy="give one number with --alpha")
        return Job(models, formula=method, alpha=0.5 if options.alpha is None else options.alpha, dtype=dtype, force=options.force)
    if method not in METHODS:
        remedy = f"choose {', '.join(FORMULAS)}, or with --base one of docs/methods.md"
        raise UsageError(f"there is no method {method!r} for models", where="--method", remedy=remedy)
    if not options.base:
        remedy = f"name the model that they were trained from with --base, or choose {', '.join(FORMULAS)}"
        raise UsageError(f"{method} merges the changes of a base", where="--base", remedy=remedy)
    if options.alpha is not None:
        raise UsageError(f"{method} takes --weights", where="--alpha", remedy="give one weight a model, or leave --base out")
    return Job(models, base=open_model(options.base), recipe=_recipe(method, models, options), dtype=dtype, force=options.force)


def _recipe(method: str, models: Sequence[Model], options: MergeOptions) -> Recipe:
    weights = options.weights or (round(1 / len(models), 4),) * len(models)
    if len(weights) != len(models):
        raise UsageError(f"{len(weights)} given for {len(models)} models", where="--weights", remedy="give one a model")
    fields: dict[str, Any] = {p.name: p.default for p in METHODS[method].parameters}
    fields |= {name: value for name, value in options.fields().items() if name not in ("method", "dtype")}
    if METHODS[method].rank == "required":
        raise UsageError(f"{method} cuts LoRAs to a rank, which models do not have", where="--method", remedy="choose linear")
    return Recipe(method=method, weights=weights, **fields)


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
    for taken in (place, _beside(place, models[0])):
        if taken.exists():
            raise UsageError("is there already", where=f"--out {taken}", remedy=f"name another {what}, or remove it")
    if not place.absolute().parent.is_dir():
        raise UsageError("the directory does not exist", where=f"--out {place.parent}", remedy="create it, or name another")
    return place


def _beside(place: Path, first: Model) -> Path:
    """What says how a model was made: in its folder, or beside its file, but not as NAME.yaml, which A1111 takes for its configuration."""
    return place.with_name(f"{place.stem}.merge.yaml") if first.suffix else place / "merge.yaml"


def _facts(job: Job, found: ModelMerge) -> dict[str, Any]:
    """What was merged and how: ``models`` and ``base`` with their digests, ``method``, ``alpha`` or the recipe, and what was left apart."""
    named = [{"name": clean_name(model.name), "sha256": model.digest} for model in job.models]
    facts: dict[str, Any] = {"kind": "model", "models": named, "method": job.formula or (job.recipe.method if job.recipe else "")}
    if job.formula:
        facts["alpha"] = job.alpha
    if job.base and job.recipe:
        facts["base"] = {"name": clean_name(job.base.name), "sha256": job.base.digest}
        facts["recipe"] = {name: value for name, value in job.recipe.data().items() if name not in ("dtype", "rank", "sources")}
    return facts | {"dtype": job.dtype or "as the first model", "tensors": found.tensors, "apart": list(found.apart)}


def _tell(job: Job, found: ModelMerge, facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts | {"file" if job.models[0].suffix else "folder": str(found.place)}))
        return
    console = Console(highlight=False)
    names = ", ".join(entry["name"] for entry in facts["models"])
    how = f"{job.formula} at α = {job.alpha:g}" if job.formula else f"{facts['method']} over {facts['base']['name']}"
    console.print(f"{names}: {how}, {found.tensors} tensors", soft_wrap=True, markup=False)
    for line in found.apart[:_LISTED]:
        console.print(f"not merged: {line}", soft_wrap=True, markup=False)
    if len(found.apart) > _LISTED:
        console.print(
            f"not merged: {len(found.apart) - _LISTED} more, see {_beside(found.place, job.models[0]).name}", soft_wrap=True, markup=False
        )
    console.print(f"model   {found.place}", soft_wrap=True, markup=False)
