"""Resolving the options of ``optimize merge --kind model`` into a job: a formula, a method over a base, or a replayed merge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from optimizer.adapters.files.dtypes import DTYPES, SAFETENSORS_DTYPES
from optimizer.checkpoints.model import Model
from optimizer.checkpoints.open import open_model
from optimizer.errors import UsageError
from optimizer.jobs.merge_options import SOLVING, MergeOptions
from optimizer.merging import METHODS, Recipe, read_blocks
from optimizer.merging.models import FORMULAS, Job, check_formula, is_merge_record, job_of
from optimizer.search.config.values import option_name

_LORAS = ("rank", "rank_energy", "target_mb", "prune", "dialect", "triggers", "allow_unknown", *SOLVING)
_REPLAYED = ("sources", "base", "kind", "out", "device")
_ROUNDING = 1e-3


def model_job(recipe: Path | None, options: MergeOptions) -> Job:
    """Returns the merge job that the options describe, or the one that a ``merge.yaml`` file and the models it names describe.

    Raises:
        UsageError: an option is invalid for full models or conflicts with another one.
        RecipeError: the ``merge.yaml`` file is invalid, or describes other models.
        BaseModelError: a model cannot be read.
    """
    for name in _LORAS:
        if getattr(options, name) != MergeOptions.model_fields[name].default:
            raise UsageError("is for LoRAs", where=option_name(name), remedy="leave it out")
    if not 2 <= len(options.sources) <= 5 and not options.force:
        given, named = f"{len(options.sources)} given", "" if recipe is None else ", those that were merged, in the same order"
        remedy = f"give two to five models{named}: diffusers folders or .safetensors files"
        raise UsageError(given, where="--sources", remedy=remedy)
    told = None if recipe is None else _read_merge_record(recipe, options)
    models = tuple(map(open_model, options.sources))
    base = open_model(options.base) if options.base else None
    if recipe is not None and told is not None:
        return job_of(told, models, base, recipe)
    return _between(models, options) if base is None else _over(base, models, options)


def _read_merge_record(recipe: Path, options: MergeOptions) -> dict[str, Any]:
    told = parsed(recipe)
    if not is_merge_record(told):
        remedy = "name the models with --sources, or give the merge.yaml of a merged model"
        raise UsageError("is a recipe for LoRAs", where=recipe, remedy=remedy)
    for name, field in MergeOptions.model_fields.items():
        if name not in _REPLAYED and getattr(options, name) != field.default:
            remedy = "leave it out, or leave the file out and say everything"
            raise UsageError(f"{recipe} says it already", where=option_name(name), remedy=remedy)
    found: dict[str, Any] = told
    return found


def describes_models(recipe: Path) -> bool:
    """Returns whether a YAML file describes a merge of full models, rather than one of LoRAs."""
    return is_merge_record(parsed(recipe))


def parsed(recipe: Path) -> Any:
    """Returns the parsed content of a YAML file, or None if it cannot be read."""
    try:
        return yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _between(models: tuple[Model, ...], options: MergeOptions) -> Job:
    """Returns a job that merges models directly with each other, by a formula or as a weighted sum."""
    method = options.method or ("linear" if options.weights else "weighted_sum")
    if method == "linear":
        return _summed(models, options)
    if method not in FORMULAS:
        if method in METHODS:
            remedy = f"name the model that they were trained from with --base, or choose linear, {', '.join(FORMULAS)}"
            raise UsageError(f"{method} merges the changes of a base", where="--base", remedy=remedy)
        remedy = f"choose linear, {', '.join(FORMULAS)}, or with --base one of docs/methods.md"
        raise UsageError(f"there is no method {method!r} for models", where="--method", remedy=remedy)
    if options.weights:
        raise UsageError(f"{method} takes --alpha", where="--weights", remedy="give one number with --alpha")
    alpha, more = 0.5 if options.alpha is None else options.alpha, _more(options)
    if not options.blocks:
        return Job(models, formula=method, alpha=alpha, **more)
    check_formula(method, len(models), alpha)
    if len(options.blocks) != 1:
        remedy = "give one: it says how much of α holds in which block"
        raise UsageError(f"{len(options.blocks)} given for one α", where="--blocks", remedy=remedy)
    share = FORMULAS[method].share(alpha)
    blocks: tuple[dict[str, float], ...] = ({}, read_blocks(options.blocks[0], models[0].family, where="--blocks"))
    if len(models) == 3:  # A + α(B − C) equals C plus the changes of A and α times those of B
        return Job(models[:2], base=models[2], recipe=Recipe(method="linear", weights=(1.0, share), blocks=blocks), **more)
    return Job(models, recipe=Recipe(method="linear", weights=(1 - share, share), blocks=blocks), **more)


def _summed(models: tuple[Model, ...], options: MergeOptions) -> Job:
    if options.alpha is not None:
        raise UsageError("linear takes --weights", where="--alpha", remedy="give one weight a model, or choose weighted_sum")
    weights = _weights(models, options)
    if not math.isclose(sum(weights), 1, abs_tol=_ROUNDING):
        remedy = "give weights that do, or with --base the model that the sources were trained from, whose changes may add up to anything"
        raise UsageError(f"the weights of models add up to 1, these to {sum(weights):g}", where="--weights", remedy=remedy)
    return Job(models, recipe=Recipe(method="linear", weights=weights, blocks=_blocks(models, options)), **_more(options))


def _over(base: Model, models: tuple[Model, ...], options: MergeOptions) -> Job:
    """Returns a job that merges the models' changes relative to a base, by a method."""
    method = options.method or "linear"
    if method not in METHODS:
        where, remedy = "--method", "choose one of docs/methods.md, or leave --base out"
        problem = f"{method} takes no base" if method in FORMULAS else f"there is no method {method!r} for models"
        raise UsageError(problem, where=where, remedy=remedy)
    if options.alpha is not None:
        raise UsageError(f"{method} takes --weights", where="--alpha", remedy="give one weight a model, or leave --base out")
    if METHODS[method].rank == "required":
        raise UsageError(f"{method} cuts LoRAs to a rank, which models do not have", where="--method", remedy="choose linear")
    if METHODS[method].calibrated:
        problem = f"{method} applies a router to the factors of LoRAs, which models do not have"
        raise UsageError(problem, where="--method", remedy="choose linear")
    fields: dict[str, Any] = METHODS[method].starting_values()
    fields |= {name: value for name, value in options.fields().items() if name not in ("method", "dtype")}
    recipe = Recipe(method=method, weights=_weights(models, options), blocks=_blocks(models, options), **fields)
    return Job(models, base=base, recipe=recipe, **_more(options))


def _weights(models: Sequence[Model], options: MergeOptions) -> tuple[float, ...]:
    weights = options.weights or (round(1 / len(models), 4),) * len(models)
    if len(weights) != len(models):
        raise UsageError(f"{len(weights)} given for {len(models)} models", where="--weights", remedy="give one a model")
    return weights


def _blocks(models: Sequence[Model], options: MergeOptions) -> tuple[dict[str, float], ...]:
    if options.blocks and len(options.blocks) != len(models):
        remedy = "give one a model, in the same order (ALL for none)"
        raise UsageError(f"{len(options.blocks)} given for {len(models)} models", where="--blocks", remedy=remedy)
    return tuple(read_blocks(text, models[0].family, where=f"--blocks {i}") for i, text in enumerate(options.blocks, start=1))


def _more(options: MergeOptions) -> dict[str, Any]:
    return {"dtype": SAFETENSORS_DTYPES[DTYPES[options.dtype]] if options.dtype else "", "force": options.force}
