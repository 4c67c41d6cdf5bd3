"""Extraction: the LoRA that best approximates the difference between a fine-tuned model and its base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer.adapters import Adapter, Factors, clean_name
from optimizer.adapters.families import families_of
from optimizer.adapters.families.detection import base_family
from optimizer.adapters.names.paths import from_dotted
from optimizer.checkpoints.model import Model
from optimizer.errors import BaseModelError
from optimizer.merging.algebra.compress import compressed
from optimizer.merging.models.compatibility import check_same_kind, mismatches
from optimizer.merging.models.finite import read_finite
from optimizer.merging.rank_allocation import rank_within

_WEIGHT = ".weight"


@dataclass(frozen=True)
class Kept:
    """Energy that an extraction kept in one part of the pipeline.

    Attributes:
        modules: number of modules that changed.
        energy: Σ‖ΔW‖² over these modules.
        kept: Σ‖ΔW‖² of the extracted LoRA over these modules.
    """

    modules: int = 0
    energy: float = 0.0
    kept: float = 0.0

    @property
    def error(self) -> float:
        """Norm lost by truncation, relative to ‖ΔW‖, in [0, 1]."""
        return max(0.0, 1 - self.kept / self.energy) ** 0.5 if self.energy else 0.0


@dataclass(frozen=True)
class Extraction:
    """LoRA extracted from a pair of models.

    Attributes:
        adapter: extracted LoRA; alpha equals rank in every module, so that it is used at strength 1.
        parts: part of the pipeline → energy kept there.
        beyond: changed tensors that a LoRA cannot represent (norms, biases, embeddings) → ‖Δ‖ of each.
    """

    adapter: Adapter
    parts: Mapping[str, Kept]
    beyond: Mapping[str, float]


@torch.no_grad()
def extract(
    model: Model, base: Model, *, rank: int = 32, energy: float | None = None, tick: Callable[[int, int], None] | None = None
) -> Extraction:
    """Extracts the best approximation of ΔW = model − base with a maximum rank (Eckart & Young 1936), module by module.

    Args:
        model: fine-tuned model.
        base: model that the fine-tuning started from.
        rank: maximum rank of a module.
        energy: share of each module's Σσ² to keep, in (0, 1], at the smallest rank and at most ``rank``; None always uses ``rank``.
        tick: called with the number of finished tensors and the total.

    Returns:
        The LoRA in fp32, and the energy it keeps. A module that did not change is left out.

    Raises:
        BaseModelError: the models are incompatible, a tensor is not finite, or no module differs.
    """
    check_same_kind(model, base)
    if apart := mismatches(model, [base]):
        raise BaseModelError(f"the models do not fit each other: {next(iter(apart.values()))}", where=model.place, remedy="choose a pair")
    modules: dict[str, Factors] = {}
    parts = {part: Kept() for part in model.parts}
    beyond: dict[str, float] = {}
    total = sum(1 for _ in model.names)
    for done, (part, name) in enumerate(model.names, start=1):
        if model.parts[part][name].merges:
            delta = read_finite(model, part, name).float() - read_finite(base, part, name).float()
            path = _path(part, name, delta)
            if not bool(delta.any()):
                pass
            elif path is None:
                beyond[f"{part}.{name}"] = float(delta.norm())
            else:
                modules[path], parts[part] = _cut(delta, rank, energy, parts[part])
        if tick:
            tick(done, total)
    if not modules:
        raise BaseModelError(
            f"no module differs from {base.name}", where=model.place, remedy="choose a model that was trained from the base"
        )
    family, reason = base_family(modules, {}, families_of(model.kind))
    return Extraction(Adapter(clean_name(model.name), modules, family, reason), parts, beyond)


def _path(part: str, name: str, delta: Tensor) -> str | None:
    """Returns the canonical path of the module; None if the tensor is not a matrix or convolution, or unknown to every family."""
    matrix = name.endswith(_WEIGHT) and delta.ndim in (2, 4)
    return from_dotted(part, name.removesuffix(_WEIGHT)) if matrix else None


def _cut(delta: Tensor, rank: int, energy: float | None, so_far: Kept) -> tuple[Factors, Kept]:
    matrix = delta.flatten(1)
    found = compressed(matrix[None], min(rank, *matrix.shape), ordered=True)
    held = (found.up[0].double().square().sum(dim=0) * found.down[0].double().square().sum(dim=1)).cpu()
    whole = float(matrix.double().square().sum())
    count = found.rank if energy is None else rank_within(held, energy, whole)
    factors = Factors(found.up[0, :, :count].contiguous(), found.down[0, :count].contiguous(), float(count), tuple(delta.shape))
    return factors, Kept(so_far.modules + 1, so_far.energy + whole, so_far.kept + float(held[:count].sum()))
