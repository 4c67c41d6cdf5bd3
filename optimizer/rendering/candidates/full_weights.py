"""Putting all weights of another model of the family into a live pipeline, and taking them out again bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from optimizer.checkpoints.model import Weights, canonical
from optimizer.errors import BaseModelError
from optimizer.rendering.families import models_of

Put = Callable[[Tensor, Tensor], None]
"""Makes a live tensor hold what another one does."""


def live_tensors(pipeline: DiffusionPipeline) -> dict[tuple[str, str], Tensor]:
    """(part, canonical name) → live tensor, for everything that the pipeline's models hold."""
    return {
        (part, canonical(part, name)): tensor
        for part, model in models_of(pipeline).items()
        for name, tensor in model.state_dict(keep_vars=True).items()
    }


@contextmanager
def replaced(weights: Weights, live: Mapping[tuple[str, str], Tensor], put: Put, *, copies: bool) -> Iterator[None]:
    """Within the block the live tensors hold these weights; afterwards they hold the base's, bit for bit, whatever happened inside.

    Each tensor is read, rounded to the live one's number format and moved to where that lies, before the next is read. Counts and
    positions stay the base's.

    Args:
        weights: of a model of the same family.
        live: see ``live_tensors``.
        put: how a live tensor is made to hold another's numbers.
        copies: what is set aside are copies, for ``put`` writes over the base's numbers.

    Raises:
        BaseModelError: the base has no such tensor, or in another shape.
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
