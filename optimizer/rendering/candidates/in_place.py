"""Putting a delta into a live pipeline's weights, and taking it out again bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from optimizer.adapters import Adapter, Factors, fit_shapes, live_modules
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.candidates.full_weights import replaced
from optimizer.rendering.families import models_of


def base_weights(pipeline: DiffusionPipeline) -> dict[str, nn.Parameter]:
    """Canonical module path → weight, for every linear and convolution layer that an adapter may change."""
    return {path: cast(nn.Parameter, module.weight) for path, module in live_modules(models_of(pipeline)).items()}


@dataclass(frozen=True)
class InPlace:
    """Candidates go into the weights; see ``applied``, and ``replaced`` for other weights altogether.

    Attributes:
        weights: canonical module path → live weight.
        tensors: everything that is live, see ``live_tensors``.
        device: computes the sums.
        pinned: see ``applied``.
    """

    weights: Mapping[str, nn.Parameter]
    tensors: Mapping[tuple[str, str], Tensor]
    device: torch.device
    pinned: bool = False

    def applied(self, candidate: Candidate | None) -> AbstractContextManager[None]:
        """Within the context the weights are the candidate's."""
        if candidate is None or isinstance(candidate, Adapter):
            return applied(candidate, self.weights, self.device, pinned=self.pinned)
        return replaced(candidate, self.tensors, _write if self.pinned else _point, copies=self.pinned)


@contextmanager
def applied(
    adapter: Adapter | None, weights: Mapping[str, nn.Parameter], device: torch.device | None = None, *, pinned: bool = False
) -> Iterator[None]:
    """Within the block the live weights are base + ΔW; afterwards they are the base's, bit for bit, whatever happened inside.

    The base's tensors are set aside while the sums stand in for them, and never written to. ΔW is computed in fp32, added in fp32
    and rounded once to the weight's dtype. The sums may be moved to another device inside, as model offload does; the base's tensors
    come back where they were.

    Args:
        adapter: what to add; None adds nothing.
        weights: canonical module path → live weight.
        device: computes the sums, which lie where the weights are; None has each weight's own compute.
        pinned: the sums are written to where the base's numbers are, of which copies are set aside: a compiled model, above all one that
            is recorded as CUDA graphs, reads its weights from where they were.

    Raises:
        BaseModelError: a module of the adapter is not in the base, or has another shape; nothing was changed.
    """
    modules = fit_shapes(adapter, {path: tuple(w.shape) for path, w in weights.items()}).modules if adapter else {}
    put = _write if pinned else _point
    base = {path: weights[path].data.clone() if pinned else weights[path].data for path in modules}
    try:
        for path, factors in modules.items():
            put(weights[path], _sum(base[path], factors, device or base[path].device))
        yield
    finally:
        for path, original in base.items():
            put(weights[path], original)


def _sum(weight: Tensor, factors: Factors, device: torch.device) -> Tensor:
    # Outside of inference mode, or the parameter could never take part in a backward pass again.
    with torch.inference_mode(False), torch.no_grad():
        near = replace(factors, up=factors.up.to(device), down=factors.down.to(device))
        return (weight.to(device).float() + near.delta()).to(weight.dtype).to(weight.device)


def _point(parameter: Tensor, data: Tensor) -> None:
    with torch.inference_mode(False):
        parameter.data = data


def _write(parameter: Tensor, data: Tensor) -> None:
    with torch.inference_mode(False), torch.no_grad():
        parameter.data.copy_(data)
