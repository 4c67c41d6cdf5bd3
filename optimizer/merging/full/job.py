"""Merging full models: each tensor read, merged in fp32 and written before the next."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from optimizer.errors import BaseModelError, RecipeError
from optimizer.merging.deltas import Deltas
from optimizer.merging.full.fitting import mismatches, same_kind
from optimizer.merging.full.formulas import FORMULAS
from optimizer.merging.full.reading import Entry, Model
from optimizer.merging.full.writing import write_streamed
from optimizer.merging.lowrank import LowRank
from optimizer.merging.methods.weighted_sum import weighted_sum
from optimizer.merging.recipe import Recipe

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """What is merged, and how.

    Attributes:
        models: in the order of the formula, or of the recipe's weights; parts that are not merged are the first one's.
        formula: a name in ``FORMULAS``, with ``alpha``; or empty, with ``base`` and ``recipe``.
        alpha: in [0, 1] for interpolations.
        base: what the changes of the models are changes of.
        recipe: method and weights for these changes; its rank and dtype are not read.
        dtype: number format of the result as safetensors spells it; that of the first model's tensor where empty.
        force: merge what matches, and take from the first model what does not.
    """

    models: tuple[Model, ...]
    formula: str = ""
    alpha: float = 0.5
    base: Model | None = None
    recipe: Recipe | None = None
    dtype: str = ""
    force: bool = False


@dataclass(frozen=True)
class ModelMerge:
    """What was merged.

    Attributes:
        folder: the result, a diffusers pipeline.
        tensors: how many were merged.
        apart: those that do not match, one line each; they are the first model's.
    """

    folder: Path
    tensors: int
    apart: tuple[str, ...]


@torch.no_grad()
def merge_models(job: Job, folder: Path, *, tick: Tick | None = None) -> ModelMerge:
    """Merge and write a diffusers pipeline: all its parts, complete.

    Args:
        job: what to do.
        folder: to be written; it must not exist. It has another name until it is complete.
        tick: told how many tensors of how many are done.

    Raises:
        RecipeError: the formula takes another number of models, or α is out of range.
        BaseModelError: the models do not fit each other; nothing was written.
    """
    _check(job)
    first, apart = job.models[0], _apart(job)
    if apart and not job.force:
        more = f" (and {len(apart) - 1} more)" if len(apart) > 1 else ""
        remedy = "merge models of one family, or add --force to take what does not match from the first"
        raise BaseModelError(f"the models do not fit each other: {next(iter(apart.values()))}{more}", where=first.folder, remedy=remedy)
    growing = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(growing, ignore_errors=True)
    shutil.copytree(first.folder, growing, ignore=_weights_of(first))
    total, done = sum(1 for _ in first.names), 0
    for part, entries in first.parts.items():

        def merged(part: str = part, entries: dict[str, Entry] = entries) -> Iterator[Tensor]:
            nonlocal done
            for name in sorted(entries):
                keep = (part, name) in apart or not entries[name].merges
                yield first.read(part, name) if keep else _merged(job, part, name)
                done += 1
                if tick:
                    tick(done, total)

        shapes = {name: (entries[name].shape, _kind(job, entries[name])) for name in sorted(entries)}
        write_streamed(growing / part / _file(part), shapes, merged())
    growing.replace(folder)
    count = sum(1 for part, name in first.names if first.parts[part][name].merges and (part, name) not in apart)
    return ModelMerge(folder, count, tuple(apart.values()))


def _merged(job: Job, part: str, name: str) -> Tensor:
    """One tensor of the result, fp32."""
    tensors = [model.read(part, name).float() for model in job.models]
    if job.formula:
        return FORMULAS[job.formula].combine(tensors, job.alpha)
    assert job.base is not None
    assert job.recipe is not None
    origin = job.base.read(part, name).float()
    change = _change([tensor - origin for tensor in tensors], job.recipe, f"{part}.{name}", job.models)
    return origin if change is None else origin + change.reshape(origin.shape)


def _change(deltas: Sequence[Tensor], recipe: Recipe, path: str, models: Sequence[Model]) -> Tensor | None:
    """What the method makes of the changes of one tensor; None where there is none.

    What has one row has no spectrum: norms and biases are summed by weight where the method works on directions.
    """
    method = recipe.method_record
    weights = [(i, method.sign(i) * w) for i, w in enumerate(recipe.weights) if w and bool(deltas[i].any())]
    if not weights:
        return None
    matrices = [deltas[i].reshape(deltas[i].shape[0] if deltas[i].ndim > 1 else 1, -1) for i, _ in weights]
    terms = tuple(_as_term(matrix) for matrix in matrices)
    signed = torch.tensor([[w] for _, w in weights])
    every = torch.tensor([[method.sign(i) * w] for i, w in enumerate(recipe.weights)])
    sources = tuple(models[i].digest for i, _ in weights) if method.seeded else tuple("" for _ in weights)
    function = weighted_sum if len(matrices[0]) == 1 and method.cost != "entries" else method.function
    change = function(Deltas((path,), terms, signed, sources, every), recipe)
    return (change.dense() if isinstance(change, LowRank) else change)[0]


def _as_term(matrix: Tensor) -> LowRank:
    """A matrix as factors, exactly: identity times matrix, or matrix times identity."""
    eye = torch.eye(min(matrix.shape))
    return LowRank(eye[None], matrix[None]) if matrix.shape[0] <= matrix.shape[1] else LowRank(matrix[None], eye[None])


def _check(job: Job) -> None:
    if not job.formula:
        return
    formula = FORMULAS[job.formula]
    if len(job.models) != formula.models:
        problem = f"{job.formula} takes {formula.models} models ({formula.text}), {len(job.models)} were given"
        raise RecipeError(problem, where="--sources", remedy="give as many, or choose another --method")
    if job.formula != "add_difference" and not 0 <= job.alpha <= 1:
        raise RecipeError(f"α is {job.alpha:g}", where="--alpha", remedy="give a number from 0 to 1")


def _apart(job: Job) -> dict[tuple[str, str], str]:
    """The tensors that not all models have in one shape, each with a line that says so."""
    first, *rest = (*job.models, *([job.base] if job.base else []))
    if not job.force:
        for other in rest:
            same_kind(first, other)
    return mismatches(first, rest)


def _weights_of(model: Model) -> Callable[[str, list[str]], list[str]]:
    """What is not copied: the weights of the parts that are merged, and their indices."""
    merged = {str(model.folder / part) for part in model.parts}

    def ignored(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if folder in merged and (".safetensors" in name or name.endswith((".bin", ".ckpt", ".msgpack")))]

    return ignored


def _kind(job: Job, entry: Entry) -> str:
    return job.dtype if job.dtype and entry.merges else entry.dtype


def _file(part: str) -> str:
    """What diffusers and transformers call the file of a part."""
    return "model.safetensors" if part.startswith("text_encoder") else "diffusion_pytorch_model.safetensors"
