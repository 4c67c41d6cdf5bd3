"""Compares the weight shapes of an adapter with those of a loaded base model, module by module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.adapters.names.paths import TEMPLATES, from_dotted
from optimizer.errors import BaseModelError

Shapes = Mapping[str, tuple[int, ...]]


_WRAPPED = ".base_layer"  # name of a module in a layer of PEFT


def live_modules(components: Mapping[str, nn.Module]) -> dict[str, nn.Linear | nn.Conv2d]:
    """Returns canonical path → module, for every linear and convolution module with a known canonical path.

    A module that PEFT has put into a layer of its own, beside a branch, is found there.

    Args:
        components: part → model, for instance ``{"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}``.
    """
    found = {}
    for part, model in components.items():
        for name, module in model.named_modules() if part in TEMPLATES else ():
            path = from_dotted(part, name.removesuffix(_WRAPPED)) if isinstance(module, nn.Linear | nn.Conv2d) else None
            if path is not None and isinstance(module, nn.Linear | nn.Conv2d):
                found[path] = module
    return found


def weight_shapes(components: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """Returns canonical path → shape of the module's weight, for the modules of ``live_modules``."""
    return {path: weight_shape(module) for path, module in live_modules(components).items()}


def weight_shape(module: nn.Linear | nn.Conv2d) -> tuple[int, ...]:
    """Returns the shape of a module's weight; for a linear layer from its feature counts, since a quantised weight is packed."""
    return (module.out_features, module.in_features) if isinstance(module, nn.Linear) else tuple(module.weight.shape)


def shape_mismatches(adapter: Adapter, shapes: Shapes) -> list[str]:
    """Returns one line for every module of the adapter that the base lacks or has in another shape, in the adapter's order.

    A matrix (out, in) and a 1 × 1 convolution (out, in, 1, 1) are compatible.
    """
    lines = []
    for path, factors in adapter.modules.items():
        if path not in shapes:
            lines.append(f"{path}: not in the base model")
        elif not _fits(factors.shape, shapes[path]):
            lines.append(f"{path}: the adapter changes a weight of shape {factors.shape}, the base model's is {tuple(shapes[path])}")
    return lines


def fit_shapes(adapter: Adapter, shapes: Shapes) -> Adapter:
    """Returns the adapter with every module in the shape of the base's weight.

    Raises:
        BaseModelError: a module is missing in the base or has an incompatible shape; lists the first five.
    """
    if lines := shape_mismatches(adapter, shapes):
        more = f" (and {len(lines) - 5} more)" if len(lines) > 5 else ""
        raise BaseModelError(
            f"does not fit the base model: {'; '.join(lines[:5])}{more}",
            where=adapter.name,
            remedy="use the base model that it was trained on",
        )
    return replace(adapter, modules={path: with_shape(factors, shapes[path]) for path, factors in adapter.modules.items()})


def with_shape(factors: Factors, shape: tuple[int, ...]) -> Factors:
    """Returns the factors for a weight of another shape with the same number of rows and columns."""
    return factors if factors.shape == tuple(shape) else replace(factors, shape=tuple(shape))


def _fits(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    return bare(first) == bare(tuple(second))


def bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape used for comparison: (out, in) for a 1 × 1 convolution, else the shape itself."""
    return shape[:2] if shape[2:] == (1, 1) else shape
