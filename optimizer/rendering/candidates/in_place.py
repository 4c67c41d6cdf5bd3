"""Temporary addition of ΔW to the weights of a loaded pipeline, restored bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from optimizer.adapters import Adapter, Factors, fit_shapes, live_modules
from optimizer.checkpoints.model import Weights
from optimizer.rendering.candidates.full_weights import replaced
from optimizer.rendering.pipeline_class import models_of


def base_weights(pipeline: DiffusionPipeline) -> dict[str, nn.Parameter]:
    """Returns canonical module path → weight, for every linear and convolution layer that an adapter may change."""
    return {path: cast(nn.Parameter, module.weight) for path, module in live_modules(models_of(pipeline)).items()}


@dataclass(frozen=True)
class InPlace:
    """Applies candidates to the weights: adapters through ``applied``, full sets of weights through ``replaced``.

    Attributes:
        weights: canonical module path → loaded weight.
        tensors: all loaded tensors, from ``live_tensors``.
        device: device that computes base + ΔW.
        pinned: whether to write in place, as in ``applied``.
    """

    weights: Mapping[str, nn.Parameter]
    tensors: Mapping[tuple[str, str], Tensor]
    device: torch.device
    pinned: bool = False

    def applied(self, candidate: Adapter | Weights | None) -> AbstractContextManager[None]:
        """Returns a context in which the weights are those of the candidate."""
        if candidate is None or isinstance(candidate, Adapter):
            return applied(candidate, self.weights, self.device, pinned=self.pinned)
        return replaced(candidate, self.tensors, _write if self.pinned else _point, copies=self.pinned)


@contextmanager
def applied(
    adapter: Adapter | None, weights: Mapping[str, nn.Parameter], device: torch.device | None = None, *, pinned: bool = False
) -> Iterator[None]:
    """Context in which the loaded weights are base + ΔW; on exit the base's are restored bit for bit, even after an exception.

    ΔW is computed in fp32, added in fp32 and rounded once to the weight's dtype. Unless ``pinned``, the sums are new tensors and the base's
    tensors are never written to. The sums may be moved to another device inside the context, as model offload does; the base's tensors are
    restored on their original device.

    Args:
        adapter: adapter to add; None adds nothing.
        weights: canonical module path → loaded weight.
        device: device that computes the sums, which are stored on the device of the weights; None uses each weight's own device.
        pinned: whether to write the sums in place and back up copies of the base's values. Compiled models, and CUDA graphs in
            particular, read their weights from fixed addresses.

    Raises:
        BaseModelError: a module of the adapter is missing in the base, or has another shape; nothing was changed.
    """
    modules = fit_shapes(adapter, {path: tuple(w.shape) for path, w in weights.items()}).modules if adapter else {}
    put = _write if pinned else _point
    base = {path: weights[path].data.clone() if pinned else weights[path].data for path in modules}
    try:
        for path, factors in modules.items():
            put(weights[path], with_change(base[path], factors, device or base[path].device))
        yield
    finally:
        for path, original in base.items():
            put(weights[path], original)


def with_change(weight: Tensor, factors: Factors, device: torch.device) -> Tensor:
    """Returns weight + ΔW, added in fp32 on a device and rounded once, with the weight's dtype and on its device."""
    # Outside inference mode, because inference tensors cannot take part in a backward pass later.
    with torch.inference_mode(False), torch.no_grad():
        near = replace(factors, up=factors.up.to(device), down=factors.down.to(device))
        return (weight.to(device).float() + near.delta()).to(weight.dtype).to(weight.device)


def _point(parameter: Tensor, data: Tensor) -> None:
    with torch.inference_mode(False):
        parameter.data = data


def _write(parameter: Tensor, data: Tensor) -> None:
    with torch.inference_mode(False), torch.no_grad():
        parameter.data.copy_(data)
