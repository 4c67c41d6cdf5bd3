"""A blend: what full models become together, computed tensor by tensor when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer.checkpoints.model import Model
from optimizer.checkpoints.streaming import DTYPES
from optimizer.errors import BaseModelError
from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank
from optimizer.merging.blocks.maps import block_weight, check_block_names
from optimizer.merging.methods.weighted_sum import weighted_sum
from optimizer.merging.models.compatibility import mismatches, same_kind
from optimizer.merging.models.formulas import FORMULAS, check_formula
from optimizer.merging.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """What is merged, and how.

    Attributes:
        models: in the order of the formula, or of the recipe's weights; what is not merged is the first one's.
        formula: a name in ``FORMULAS``, with ``alpha``; or empty, with ``recipe``.
        alpha: in [0, 1] for interpolations.
        base: what the changes of the models are changes of; the first of them where it is not given, which then changes nothing itself.
        recipe: method, weights and block weights of these changes; its rank and dtype are not read.
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


class Blend:
    """The weights that a job makes, none of which is there before it is read.

    Args:
        job: what to do.
        device: computes, in fp32, and holds what is read.

    Attributes:
        apart: the tensors that not all models have in one shape, each with a line that says so; they are the first model's.

    Raises:
        RecipeError: the formula takes another number of models, α is out of range, or a block is none of the models'.
        BaseModelError: the models do not fit each other, and it is not forced.
    """

    def __init__(self, job: Job, device: str | torch.device = "cpu") -> None:
        self.job, self.device = job, device
        self.first = job.models[0]
        _check(job, self.first.family)
        self.apart: Mapping[tuple[str, str], str] = _apart(job)

    @property
    def names(self) -> Iterator[tuple[str, str]]:
        """Every (part, tensor) of the first model."""
        return self.first.names

    @property
    def merged(self) -> int:
        """How many tensors are made of all models."""
        return sum(1 for part, name in self.names if self.first.parts[part][name].merges and (part, name) not in self.apart)

    @torch.no_grad()
    def read(self, part: str, name: str) -> Tensor:
        """A tensor as it would be stored: merged in fp32, and rounded once."""
        entry = self.first.parts[part][name]
        if not entry.merges:
            return self.first.read(part, name)
        tensor = self._computed(part, name) if (part, name) not in self.apart else self.first.read(part, name)
        return tensor.to(DTYPES[self.job.dtype or entry.dtype])

    def _computed(self, part: str, name: str) -> Tensor:
        job = self.job
        tensors = [model.read(part, name).to(self.device).float() for model in job.models]
        if job.formula:
            return FORMULAS[job.formula].combine(tensors, job.alpha)
        assert job.recipe is not None
        origin = job.base.read(part, name).to(self.device).float() if job.base else tensors[0]
        change = self._change([tensor - origin for tensor in tensors], job.recipe, f"{part}.{name}")
        return origin if change is None else origin + change.reshape(origin.shape)

    def _change(self, deltas: Sequence[Tensor], recipe: Recipe, path: str) -> Tensor | None:
        """What the method makes of the changes of one tensor; None where there is none.

        What has one row has no spectrum: norms and biases are summed by weight where the method works on directions.
        """
        method = recipe.method_record
        signed = [method.sign(i) * w * self._at(recipe, i, path) for i, w in enumerate(recipe.weights)]
        live = [i for i, w in enumerate(signed) if w and bool(deltas[i].any())]
        if not live:
            return None
        matrices = [deltas[i].reshape(deltas[i].shape[0] if deltas[i].ndim > 1 else 1, -1) for i in live]
        terms = tuple(_as_term(matrix) for matrix in matrices)
        sources = tuple(self.job.models[i].digest if method.seeded else "" for i in live)
        function = weighted_sum if len(matrices[0]) == 1 and method.cost != "entries" else method.function
        weights, every = torch.tensor([[signed[i]] for i in live]), torch.tensor([[w] for w in signed])
        change = function(Deltas((path,), terms, weights.to(self.device), sources, every.to(self.device)), recipe)
        return (change.dense() if isinstance(change, LowRank) else change)[0]

    def _at(self, recipe: Recipe, model: int, path: str) -> float:
        return block_weight(path, recipe.blocks[model], self.first.family) if recipe.blocks else 1.0


def _as_term(matrix: Tensor) -> LowRank:
    """A matrix as factors, exactly: identity times matrix, or matrix times identity."""
    eye = torch.eye(min(matrix.shape), device=matrix.device)
    return LowRank(eye[None], matrix[None]) if matrix.shape[0] <= matrix.shape[1] else LowRank(matrix[None], eye[None])


def _check(job: Job, family: str) -> None:
    if job.recipe:
        for i, names in enumerate(job.recipe.blocks):
            check_block_names(names, where=f"recipe: blocks.{i}", base=family)
    if job.formula:
        check_formula(job.formula, len(job.models), job.alpha)


def _apart(job: Job) -> dict[tuple[str, str], str]:
    """The tensors that not all models have in one shape; refused unless forced."""
    first, *rest = job.models
    for other in (*rest, *([job.base] if job.base else [])):
        if not job.force:
            same_kind(first, other)
    apart = mismatches(first, rest, job.base)
    if apart and not job.force:
        more = f" (and {len(apart) - 1} more)" if len(apart) > 1 else ""
        remedy = "merge models of one family, or add --force to take what does not match from the first"
        raise BaseModelError(f"the models do not fit each other: {next(iter(apart.values()))}{more}", where=first.place, remedy=remedy)
    return apart
