"""The merge record of full models: the models and settings that reproduce a merge, beside the merged model as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from optimizer.adapters import clean_name
from optimizer.checkpoints.model import Model
from optimizer.errors import RecipeError
from optimizer.merging.models.blend import Job
from optimizer.merging.models.formulas import FORMULAS
from optimizer.merging.recipe import Recipe

_UNREAD = ("dtype", "rank", "sources")
_AS_FIRST = "as the first model"
_DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U8", "BOOL")  # that a record may state


def merge_record(job: Job) -> dict[str, Any]:
    """Returns a job as JSON-serialisable data: names and digests of the models and the base, method, alpha or recipe, dtype, force."""
    named = [_named(model) for model in job.models]
    told: dict[str, Any] = {"kind": "model", "models": named, "method": job.formula or (job.recipe.method if job.recipe else "")}
    if job.formula:
        told["alpha"] = job.alpha
    if job.base:
        told["base"] = _named(job.base)
    if job.recipe:
        told["recipe"] = {name: value for name, value in job.recipe.data().items() if name not in _UNREAD}
    return told | {"dtype": job.dtype or _AS_FIRST, "force": job.force}


def merge_record_text(job: Job) -> str:
    """Returns the merge record of a job as YAML text."""
    return str(yaml.safe_dump(merge_record(job), sort_keys=False, allow_unicode=True))


def merge_record_path(place: Path) -> Path:
    """Returns the path of a merged model's merge record: in its folder, or next to its file.

    The file is not called NAME.yaml, because A1111 reads that as the model's configuration.
    """
    return place.with_name(f"{place.stem}.merge.yaml") if place.suffix == ".safetensors" else place / "merge.yaml"


def is_merge_record(data: object) -> bool:
    """Returns whether parsed file content is the merge record of full models, rather than a recipe for LoRAs."""
    return isinstance(data, Mapping) and data.get("kind") == "model"


def job_of(told: Mapping[str, Any], models: Sequence[Model], base: Model | None, where: Path) -> Job:
    """Returns the job that a merge record describes.

    Args:
        told: result of ``merge_record``, or parsed file content.
        models: models that the merge record names, in its order.
        base: base model that the merge record names, or None.
        where: path of the merge record, for errors.

    Raises:
        RecipeError: the models are not those of the merge record, or it is invalid.
    """
    try:
        wanted = [(entry["name"], entry["sha256"]) for entry in told["models"]]
        origin = (told["base"]["name"], told["base"]["sha256"]) if "base" in told else None
        formula = "" if "recipe" in told else str(told["method"])
        recipe = Recipe.from_data(told["recipe"]) if "recipe" in told else None
        alpha, dtype = float(told.get("alpha", 0.5)), "" if told["dtype"] == _AS_FIRST else str(told["dtype"])
    except (LookupError, TypeError, ValueError) as error:
        raise RecipeError(f"cannot be understood ({error!r})", where=where, remedy="restore the file, or merge anew") from error
    if (formula and formula not in FORMULAS) or (dtype and dtype not in _DTYPES):
        problem = f"there is no {f'method {formula!r} for models' if formula not in ('', *FORMULAS) else f'number format {dtype!r}'}"
        raise RecipeError(problem, where=where, remedy=f"choose {', '.join(FORMULAS)}, and one of {', '.join(_DTYPES)}")
    _check_same(wanted, models, where, "--sources")
    _check_same([origin] if origin else [], [base] if base else [], where, "--base")
    return Job(tuple(models), formula, alpha, base, recipe, dtype, bool(told.get("force", False)))


def _named(model: Model) -> dict[str, str]:
    return {"name": clean_name(model.name), "sha256": model.digest}


def _check_same(wanted: Sequence[tuple[str, str]], models: Sequence[Model], where: Path, option: str) -> None:
    if len(wanted) != len(models):
        names = ", ".join(name for name, _ in wanted) or "none"
        problem = f"{where} was made of {len(wanted)} ({names}), {len(models)} given"
        raise RecipeError(problem, where=option, remedy="give the same, in the same order")
    for (name, digest), model in zip(wanted, models, strict=True):
        if model.digest != digest:
            problem = f"{model.name} has SHA-256 {model.digest[:16]}…, {where} was made of {name} with {str(digest)[:16]}…"
            raise RecipeError(problem, where=option, remedy="give the same models, in the same order")
