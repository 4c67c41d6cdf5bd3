"""Checks that the tensors of full models are finite, where they are read and where they are rounded."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from optimizer.checkpoints.model import Model
from optimizer.errors import BaseModelError, RecipeError


def read_finite(model: Model, part: str, name: str) -> Tensor:
    """Returns a tensor of a model as it is stored.

    Raises:
        BaseModelError: it holds NaN or infinity.
    """
    tensor = model.read(part, name)
    if not is_finite(tensor):
        remedy = "fetch the model again, or choose another one"
        raise BaseModelError(f"{part}.{name} holds values that are not finite", where=model.place, remedy=remedy)
    return tensor


def rounded(tensor: Tensor, dtype: torch.dtype, path: str) -> Tensor:
    """Returns a tensor, rounded to a dtype.

    Args:
        tensor: values, fp32.
        dtype: dtype of the result.
        path: name of the tensor, for errors.

    Raises:
        RecipeError: values are not finite, or too large for the dtype.
    """
    found = tensor.to(dtype)
    if not is_finite(found):
        short = str(dtype).removeprefix("torch.")
        problem = f"the merge has values up to {float(tensor.abs().max()):.3g}, which {short} cannot hold"
        raise RecipeError(problem, where=path, remedy="lower the weights, or write it with --dtype bf16 or fp32")
    return found


def is_finite(tensor: Tensor) -> bool:
    """Returns whether no value is NaN or infinite; True for integers."""
    if not tensor.is_floating_point():
        return True
    values = tensor.float() if tensor.itemsize == 1 else tensor
    return math.isfinite(float(values.sum(dtype=torch.float32))) or bool(torch.isfinite(values).all())
