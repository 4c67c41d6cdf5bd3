"""One module of a file with the base weight that it multiplies, and readers for its tensors and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from optimizer.adapters.expand import BrokenModule, Tensors


@dataclass(frozen=True, eq=False)
class Based:
    """The tensors of one module and the base weight that they change; all in fp64."""

    path: str
    tensors: Tensors
    weight: Tensor
    alpha_of: Callable[[int], float]
    has_bias: bool
    settings: Mapping[str, Any]


def along(suffix: str, vector: Tensor, weight: Tensor, dim: int) -> Tensor:
    """Returns a vector of any layout, reshaped to broadcast along one dimension of the weight.

    Raises:
        BrokenModule: the vector does not have one value per index of that dimension.
    """
    if vector.numel() != weight.shape[dim] or max(vector.shape, default=1) != vector.numel():
        side = f"{weight.shape[dim]} {('outputs', 'inputs')[dim]}"
        raise BrokenModule(suffix, f"shape {tuple(vector.shape)} is not one value for each of {side}")
    return vector.reshape([-1 if d == dim else 1 for d in range(weight.ndim)])


def number(module: Based, suffix: str) -> float:
    tensor = module.tensors[suffix]
    if tensor.numel() != 1 or float(tensor.reshape(())) < 0:
        raise BrokenModule(suffix, f"is not one number of at least 0: shape {tuple(tensor.shape)}")
    return float(tensor.reshape(()))


def setting(module: Based, name: str, default: float) -> float:
    """Returns a flag or number of adapter_config.json as float.

    Raises:
        BrokenModule: the value does not have the type of its default, or is not finite and below 1e300 in magnitude.
    """
    value = module.settings.get(name, default)
    fits = type(value) is type(default) or (type(default) is float and type(value) is int)
    if not fits or not abs(value) < 1e300:
        raise BrokenModule("oft_R", f"adapter_config.json gives {name} as {str(value)[:40]!r}")
    return float(value)
