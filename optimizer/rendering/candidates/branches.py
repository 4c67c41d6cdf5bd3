"""Low-rank branches (PEFT adapters) in a loaded pipeline, for candidates that cannot be added to the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.hotswap import hotswap_adapter_from_state_dict
from torch import Tensor

from optimizer.adapters import Adapter, Factors, fit_shapes, live_modules
from optimizer.adapters.shapes import Shapes
from optimizer.checkpoints.model import Weights
from optimizer.rendering.pipeline_class import models_of

_NAME = "candidate"


class Branches:
    """Low-rank branches of linear and convolution layers, swapped with PEFT's hot-swap; the base weights are never modified.

    A layer gets a branch when a candidate first changes it. Branches have the largest rank of the candidates so far and are zero-padded
    for candidates of lower rank. Candidates of equal size are therefore swapped by copying values, without recompilation. The change of
    an accelerator stands in the branches all the time, beside that of every candidate.

    Args:
        pipeline: pipeline whose layers get branches.
        shapes: canonical module path → shape of its weight.
        dtype: dtype of the branches.
        standing: change that is always there, in the shapes of the weights; None for none.
    """

    def __init__(self, pipeline: DiffusionPipeline, shapes: Shapes, dtype: torch.dtype, standing: Adapter | None = None) -> None:
        self._models: dict[str, Any] = dict(models_of(pipeline))
        self._shapes, self._dtype = shapes, dtype
        self._live = _names(self._models)
        self._ranks: dict[str, int] = {}
        self._names: dict[str, set[str]] = {}
        self._standing: Mapping[str, Factors] = standing.modules if standing else {}
        self._put(self._standing)

    @contextmanager
    def applied(self, candidate: Adapter | Weights | None) -> Iterator[None]:
        """Context in which the layers compute base + branch; on exit the branches hold the standing change alone, or zero.

        Raises:
            BaseModelError: a module of the adapter is missing in the base, or has another shape; nothing was changed.
        """
        assert candidate is None or isinstance(candidate, Adapter)  # a search over full models loads their weights instead
        modules = fit_shapes(candidate, self._shapes).modules if candidate else {}
        self._put(_sums(modules, self._standing))
        try:
            yield
        finally:
            if modules:
                self._put(self._standing)

    def _put(self, modules: Mapping[str, Factors]) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self._widen(modules)
            self._swap(modules)

    def _widen(self, modules: Mapping[str, Factors]) -> None:
        """Ensures that every layer to be changed has a branch of sufficient rank."""
        for part, wanted in self._by_part(modules).items():
            rank, names = max(factors.rank for factors in wanted.values()), set(wanted)
            if rank > self._ranks.get(part, 0) or not names <= self._names.get(part, set()):
                self._ranks[part] = max(rank, self._ranks.get(part, 0))
                self._names[part] = names | self._names.get(part, set())
                self._grow(part)

    def _grow(self, part: str) -> None:
        model = self._models[part]
        recurse_remove_peft_layers(model)
        if hasattr(model, "peft_config"):
            del model.peft_config
        inject_adapter_in_model(self._config(part), model, adapter_name=_NAME)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                for half in (module.lora_A[_NAME], module.lora_B[_NAME]):
                    half.to(self._dtype).requires_grad_(False)

    def _swap(self, modules: Mapping[str, Factors]) -> None:
        """Copies the factors into the branches; branches of layers that are not named are set to zero."""
        wanted = self._by_part(modules)
        for part in self._names:
            tensors: dict[str, Tensor] = {}
            for name, factors in wanted.get(part, {}).items():
                tensors |= _halves(name, factors, self._dtype)
            hotswap_adapter_from_state_dict(self._models[part], tensors, _NAME, self._config(part))

    def _config(self, part: str) -> LoraConfig:
        """Returns the PEFT configuration of a component, with scale 1, since the adapter's scale is included in the factors."""
        rank = self._ranks[part]
        return LoraConfig(r=rank, lora_alpha=rank, target_modules=sorted(self._names[part]), init_lora_weights=False)

    def _by_part(self, modules: Mapping[str, Factors]) -> dict[str, dict[str, Factors]]:
        """Returns component of the pipeline → name of the module in it → factors of its ΔW."""
        found: dict[str, dict[str, Factors]] = {}
        for path, factors in modules.items():
            found.setdefault(path.partition(".")[0], {})[self._live[path]] = factors
        return found


def _sums(modules: Mapping[str, Factors], standing: Mapping[str, Factors]) -> Mapping[str, Factors]:
    """Returns the sum of two changes; the ranks of a module that both change add up."""
    return {**modules, **standing, **{path: _sum(modules[path], standing[path]) for path in modules.keys() & standing.keys()}}


def _sum(first: Factors, second: Factors) -> Factors:
    up = torch.cat([first.up.float() * first.scale, second.up.to(first.up.device).float() * second.scale], dim=1)
    down = torch.cat([first.down.float(), second.down.to(first.down.device).float()])
    return replace(first, up=up, down=down, alpha=float(up.shape[1]))


def _names(models: Mapping[str, Any]) -> dict[str, str]:
    """Returns canonical path → name of the module in its component, which may omit a level of the path."""
    names = {id(module): name for model in models.values() for name, module in model.named_modules()}
    return {path: names[id(module)] for path, module in live_modules(models).items()}


def _halves(name: str, factors: Factors, dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns the two weights of a branch; for a convolution the first has its kernel size, the second is 1 × 1."""
    down, up = factors.down, factors.up.float() * factors.scale
    if len(factors.shape) == 4:
        down, up = down.reshape(factors.rank, *factors.shape[1:]), up[:, :, None, None]
    return {f"{name}.lora_A.{_NAME}.weight": down.to(dtype), f"{name}.lora_B.{_NAME}.weight": up.to(dtype)}
