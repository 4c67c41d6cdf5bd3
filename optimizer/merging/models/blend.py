"""Blend: the merged weights of full models, computed lazily, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer.adapters.files.dtypes import TORCH_DTYPES
from optimizer.checkpoints.model import Model
from optimizer.errors import BaseModelError, RecipeError
from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank
from optimizer.merging.blocks.maps import block_weight, check_block_names
from optimizer.merging.methods import check_needs
from optimizer.merging.methods.weighted_sum import weighted_sum
from optimizer.merging.models.compatibility import check_same_kind, mismatches
from optimizer.merging.models.finite import read_finite, rounded
from optimizer.merging.models.formulas import FORMULAS, check_formula
from optimizer.merging.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """Description of a merge of full models.

    Attributes:
        models: models in the order of the formula, or of the recipe's weights; tensors that are not merged come from the first model.
        formula: name in ``FORMULAS``, used with ``alpha``; empty if ``recipe`` is used.
        alpha: interpolation factor, in [0, 1] for interpolations.
        base: model that is subtracted from each model to obtain its ΔW; None uses the first model, whose own ΔW is then 0.
        recipe: method, weights and block weights for these ΔW; its rank and dtype are not read.
        dtype: dtype of the result in safetensors spelling; empty keeps the dtype of the first model's tensor.
        force: whether to merge matching tensors and take the others from the first model, instead of raising an error.
    """

    models: tuple[Model, ...]
    formula: str = ""
    alpha: float = 0.5
    base: Model | None = None
    recipe: Recipe | None = None
    dtype: str = ""
    force: bool = False


class Blend:
    """Merged weights of a job; each tensor is computed when it is read.

    Args:
        job: description of the merge.
        device: device that computes, in fp32, and holds the tensors read.

    Attributes:
        apart: tensors that are missing or differ in shape in some model → one-line description; they come from the first model.

    Raises:
        RecipeError: the number of models does not match the formula, α is out of range, a block name is unknown, the method needs an
            input that is not available, or the recipe names a calibration.
        BaseModelError: the models are incompatible and ``force`` is not set.
    """

    def __init__(self, job: Job, device: str | torch.device = "cpu") -> None:
        self.job, self.device = job, device
        self.first = job.models[0]
        _check(job, self.first.family)
        self.apart: Mapping[tuple[str, str], str] = _apart(job)

    @property
    def names(self) -> Iterator[tuple[str, str]]:
        """All (part, tensor) names of the first model."""
        return self.first.names

    @property
    def merged(self) -> int:
        """Number of tensors that are merged from all models."""
        return sum(1 for part, name in self.names if self.first.parts[part][name].merges and (part, name) not in self.apart)

    @torch.no_grad()
    def read(self, part: str, name: str) -> Tensor:
        """Returns a tensor as it is stored: merged in fp32 and rounded once to the target dtype.

        Raises:
            BaseModelError: a model's tensor holds NaN or infinity.
            RecipeError: the merged values are too large for the target dtype.
        """
        entry = self.first.parts[part][name]
        if not entry.merges:
            return read_finite(self.first, part, name)
        tensor = self._compute(part, name) if (part, name) not in self.apart else read_finite(self.first, part, name)
        return rounded(tensor, TORCH_DTYPES[self.job.dtype or entry.dtype], f"{part}.{name}")

    def _compute(self, part: str, name: str) -> Tensor:
        job = self.job
        tensors = [read_finite(model, part, name).to(self.device).float() for model in job.models]
        if job.formula:
            return FORMULAS[job.formula].combine(tensors, job.alpha)
        assert job.recipe is not None
        origin = read_finite(job.base, part, name).to(self.device).float() if job.base else tensors[0]
        change = self._change([tensor - origin for tensor in tensors], job.recipe, f"{part}.{name}")
        return origin if change is None else origin + change.reshape(origin.shape)

    def _change(self, deltas: Sequence[Tensor], recipe: Recipe, path: str) -> Tensor | None:
        """Returns the merged ΔW of one tensor; None if no model contributes.

        Tensors with one row (norms, biases) have no useful spectrum: methods that work on factors or the core use a weighted sum there.
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
    """Returns a matrix as exact factors: identity times matrix, or matrix times identity."""
    eye = torch.eye(min(matrix.shape), device=matrix.device)
    return LowRank(eye[None], matrix[None]) if matrix.shape[0] <= matrix.shape[1] else LowRank(matrix[None], eye[None])


def _check(job: Job, family: str) -> None:
    if job.recipe:
        check_needs(job.recipe.method_record)
        if job.recipe.calibration:
            raise RecipeError(
                "a router applies to the factors of LoRAs, which full models do not have",
                where="recipe: calibration",
                remedy="use another method, such as 'linear'",
            )
        for i, names in enumerate(job.recipe.blocks):
            check_block_names(names, where=f"recipe: blocks.{i}", base=family)
    if job.formula:
        check_formula(job.formula, len(job.models), job.alpha)


def _apart(job: Job) -> dict[tuple[str, str], str]:
    """Returns the tensors that are missing or differ in shape in some model; raises BaseModelError for any unless forced."""
    first, *rest = job.models
    for other in (*rest, *([job.base] if job.base else [])):
        if not job.force:
            check_same_kind(first, other)
    apart = mismatches(first, rest, job.base)
    if apart and not job.force:
        more = f" (and {len(apart) - 1} more)" if len(apart) > 1 else ""
        remedy = "merge models of one family, or add --force to take what does not match from the first"
        raise BaseModelError(f"the models do not fit each other: {next(iter(apart.values()))}{more}", where=first.place, remedy=remedy)
    return apart
