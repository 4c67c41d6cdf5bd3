"""Putting a delta into a live pipeline's weights, and taking it out again bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from optimizer.adapters import Adapter, Factors, fit_shapes, live_modules


def base_weights(pipeline: DiffusionPipeline) -> dict[str, nn.Parameter]:
    """Canonical module path → weight, for every linear and convolution layer that an adapter may change."""
    components = {part: model for part, model in pipeline.components.items() if isinstance(model, nn.Module)}
    return {path: cast(nn.Parameter, module.weight) for path, module in live_modules(components).items()}


@contextmanager
def applied(adapter: Adapter | None, weights: Mapping[str, nn.Parameter], device: torch.device | None = None) -> Iterator[None]:
    """Within the block the live weights are base + ΔW; afterwards they are the base's, bit for bit, whatever happened inside.

    The base's tensors are never written to: they are set aside while the sums stand in for them. ΔW is computed in fp32, added in fp32
    and rounded once to the weight's dtype. The sums may be moved to another device inside, as model offload does; the base's tensors
    come back where they were.

    Args:
        adapter: what to add; None adds nothing.
        weights: canonical module path → live weight.
        device: computes the sums, which lie where the weights are; None has each weight's own compute.

    Raises:
        BaseModelError: a module of the adapter is not in the base, or has another shape; nothing was changed.
    """
    modules = fit_shapes(adapter, {path: tuple(w.shape) for path, w in weights.items()}).modules if adapter else {}
    base = {path: weights[path].data for path in modules}
    try:
        for path, factors in modules.items():
            _point(weights[path], _sum(base[path], factors, device or base[path].device))
        yield
    finally:
        for path, original in base.items():
            _point(weights[path], original)


def _sum(weight: Tensor, factors: Factors, device: torch.device) -> Tensor:
    # Outside of inference mode, or the parameter could never take part in a backward pass again.
    with torch.inference_mode(False), torch.no_grad():
        near = replace(factors, up=factors.up.to(device), down=factors.down.to(device))
        return (weight.to(device).float() + near.delta()).to(weight.dtype).to(weight.device)


def _point(parameter: nn.Parameter, data: Tensor) -> None:
    with torch.inference_mode(False):
        parameter.data = data
