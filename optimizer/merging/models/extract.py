"""Extraction: the LoRA that comes nearest to what a training has made of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer.adapters import Adapter, Factors, clean_name
from optimizer.adapters.families import FAMILIES, PIPELINES
from optimizer.adapters.family_detection import base_family
from optimizer.adapters.names.paths import from_dotted
from optimizer.checkpoints.model import Model
from optimizer.errors import BaseModelError
from optimizer.merging.algebra.compress import compressed
from optimizer.merging.models.compatibility import mismatches, same_kind
from optimizer.merging.rank_allocation import rank_within

_WEIGHT = ".weight"


@dataclass(frozen=True)
class Kept:
    """What was kept of the changes of one part of the pipeline.

    Attributes:
        modules: how many changed.
        energy: Σ‖ΔW‖² over them.
        kept: the same of what the LoRA holds.
    """

    modules: int = 0
    energy: float = 0.0
    kept: float = 0.0

    @property
    def error(self) -> float:
        """What was lost, relative to ‖ΔW‖, in [0, 1]."""
        return max(0.0, 1 - self.kept / self.energy) ** 0.5 if self.energy else 0.0


@dataclass(frozen=True)
class Extraction:
    """A LoRA made of a pair of models.

    Attributes:
        adapter: alpha equals rank in every module, so that it is used at strength 1.
        parts: part of the pipeline → what was kept there.
        beyond: tensors that changed and that no LoRA holds (norms, biases, embeddings) → ‖Δ‖ of each.
    """

    adapter: Adapter
    parts: Mapping[str, Kept]
    beyond: Mapping[str, float]


@torch.no_grad()
def extract(
    model: Model, base: Model, *, rank: int = 32, energy: float | None = None, tick: Callable[[int, int], None] | None = None
) -> Extraction:
    """The best approximation of ΔW = model − base in every module, of at most a rank (Eckart & Young 1936), module by module.

    Args:
        model: what a training has made of the base.
        base: what it began with.
        rank: the greatest rank of a module.
        energy: keep this share of each module's Σσ² if the rank allows, at the least rank; in (0, 1].
        tick: told how many tensors of how many are done.

    Returns:
        The LoRA in fp32, and what it holds of the changes. A module that did not change is left out.

    Raises:
        BaseModelError: the two are not of one family, or are the same.
    """
    same_kind(model, base)
    if apart := mismatches(model, [base]):
        raise BaseModelError(f"the models do not fit each other: {next(iter(apart.values()))}", where=model.place, remedy="choose a pair")
    modules: dict[str, Factors] = {}
    parts = {part: Kept() for part in model.parts}
    beyond: dict[str, float] = {}
    total = sum(1 for _ in model.names)
    for done, (part, name) in enumerate(model.names, start=1):
        if model.parts[part][name].merges:
            delta = model.read(part, name).float() - base.read(part, name).float()
            path = _path(part, name, delta)
            if not bool(delta.isfinite().all()):
                remedy = "fetch both again, or choose another model"
                raise BaseModelError(f"{part}.{name} holds values that are not finite", where=model.place, remedy=remedy)
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
    family, reason = base_family(modules, {}, [f for f in FAMILIES.values() if f.name in PIPELINES.get(model.kind, ())])
    return Extraction(Adapter(clean_name(model.name), modules, family, reason), parts, beyond)


def _path(part: str, name: str, delta: Tensor) -> str | None:
    """The module that a LoRA would change here; None for what is no matrix and no convolution, or that no family has."""
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
