"""Putting a delta into a live pipeline's weights, and taking it out again bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from optimizer.adapters import Adapter, fit_shapes, live_modules

_PARTS = ("unet", "text_encoder")


def base_weights(pipeline: DiffusionPipeline) -> dict[str, nn.Parameter]:
    """Canonical module path → weight, for every linear and convolution layer that an adapter may change."""
    components = {part: getattr(pipeline, part) for part in _PARTS}
    return {path: module.weight for path, module in live_modules(components).items()}


@contextmanager
def applied(adapter: Adapter | None, weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Within the block the live weights are base + ΔW; afterwards they are the base's, bit for bit, whatever happened inside.

    ΔW is computed in fp32 on the weight's device, added in fp32 and rounded once to the weight's dtype.

    Raises:
        BaseModelError: a module of the adapter is not in the base, or has another shape; nothing was changed.
    """
    fitting = fit_shapes(adapter, {path: tuple(w.shape) for path, w in weights.items()}) if adapter else None
    saved: dict[str, Tensor] = {}
    try:
        for path, factors in (fitting.modules if fitting else {}).items():
            weight = weights[path]
            saved[path] = weight.detach().clone()
            up, down = (half.to(weight.device, torch.float32) for half in (factors.up, factors.down))
            delta = (factors.scale * (up @ down)).reshape(factors.shape)
            weight.data.copy_(weight.data.float() + delta)
        yield
    finally:
        for path, original in saved.items():
            weights[path].data.copy_(original)
