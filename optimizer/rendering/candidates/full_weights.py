"""Temporary replacement of all weights of a loaded pipeline by those of another model of its family, restored bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from optimizer.checkpoints.model import Weights, canonical
from optimizer.errors import BaseModelError
from optimizer.rendering.pipeline_class import models_of

Put = Callable[[Tensor, Tensor], None]
"""Sets a loaded tensor (first argument) to the values of another one."""


def live_tensors(pipeline: DiffusionPipeline) -> dict[tuple[str, str], Tensor]:
    """Returns (part, canonical name) → loaded tensor, for the state dicts of all models of a pipeline."""
    return {
        (part, canonical(part, name)): tensor
        for part, model in models_of(pipeline).items()
        for name, tensor in model.state_dict(keep_vars=True).items()
    }


@contextmanager
def replaced(weights: Weights, live: Mapping[tuple[str, str], Tensor], put: Put, *, copies: bool) -> Iterator[None]:
    """Context in which the loaded tensors have these weights; on exit the base's are restored bit for bit, even after an exception.

    Each tensor is read, rounded to the dtype of the loaded one and moved to its device, before the next is read. Integer tensors
    (counters, position indices) are not replaced.

    Args:
        weights: weights of a model of the pipeline's family.
        live: loaded tensors, from ``live_tensors``.
        put: sets a loaded tensor to the values of another.
        copies: whether to back up copies, needed if ``put`` overwrites the base's values in place.

    Raises:
        BaseModelError: a tensor is missing in the base, or has another shape.
    """
    base: dict[tuple[str, str], Tensor] = {}
    try:
        for part, name in weights.names:
            tensor = weights.read(part, name)
            if not tensor.is_floating_point():
                continue
            own = _fitting(tensor, live.get((part, name)), f"{part}.{name}")
            base[part, name] = own.data.clone() if copies else own.data
            with torch.inference_mode(False), torch.no_grad():
                put(own, tensor.to(own.device, own.dtype))
        yield
    finally:
        for key, original in base.items():
            put(live[key], original)


def _fitting(tensor: Tensor, own: Tensor | None, name: str) -> Tensor:
    if own is not None and own.shape == tensor.shape:
        return own
    problem = f"{name} is not in the base" if own is None else f"{name} has shape {tuple(tensor.shape)}, in the base {tuple(own.shape)}"
    raise BaseModelError(problem, remedy="use models and a base of one family")
