"""The merge itself: adapters and a recipe in, one adapter out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.adapters.shapes import bare, reshaped
from optimizer.errors import RecipeError
from optimizer.merging.blocks import block_weight, check_block_names
from optimizer.merging.deltas import Deltas
from optimizer.merging.lowrank import compressed
from optimizer.merging.recipe import Recipe


@torch.no_grad()
def merge(adapters: Sequence[Adapter], recipe: Recipe, *, device: str | torch.device = "cpu") -> Adapter:
    """Merge sources as a recipe says.

    Every module that any source changes is merged; a source that lacks a module contributes nothing there. A module where the weights
    and block weights of all its sources are 0 is left out.

    Args:
        adapters: the sources, in the order of the recipe's weights.
        recipe: what to do; where it names sources, they must be these.
        device: computes, and holds the result.

    Returns:
        The merged adapter in fp32, each module's alpha equal to its rank (scale 1), so that it is used at strength 1.0.

    Raises:
        RecipeError: recipe and sources do not fit, or nothing is left to merge.
    """
    function, rank = recipe.method_record.function, recipe.rank
    modules = {d.path: _finite(compressed(function(d, recipe), d.shape, rank), d.path) for d in deltas_of(adapters, recipe, device)}
    if not modules:
        raise RecipeError(
            "nothing is left to merge: every module's weight is 0", where="recipe: weights", remedy="give a source a weight other than 0"
        )
    return Adapter(name="-".join(a.name for a in adapters), modules=modules, base=common_base(adapters))


def shared_modules(adapters: Sequence[Adapter]) -> tuple[str, ...]:
    """Paths that every adapter changes, sorted; empty where they would meet nowhere."""
    common = set(adapters[0].modules).intersection(*(a.modules for a in adapters[1:])) if adapters else set()
    return tuple(sorted(common))


def common_base(adapters: Sequence[Adapter]) -> str:
    """The family of base models that all adapters were made for; ``unknown`` goes with any.

    Raises:
        RecipeError: they were made for different ones.
    """
    known = [(a.name, a.base) for a in adapters if a.base != "unknown"]
    if len({base for _, base in known}) > 1:
        listed = ", ".join(f"{name}: {base}" for name, base in known)
        raise RecipeError(
            f"the sources were trained on different base models ({listed})", where="sources", remedy="merge sources of one base model"
        )
    return known[0][1] if known else "unknown"


def deltas_of(adapters: Sequence[Adapter], recipe: Recipe, device: str | torch.device = "cpu") -> Iterator[Deltas]:
    """The input of the recipe's method, module by module in the order of their paths; modules without a live source are left out.

    Raises:
        RecipeError: recipe and sources do not fit.
    """
    bound, base = recipe.bound_to(adapters), common_base(adapters)
    blocks: Sequence[Mapping[str, float]] = bound.blocks or [{}] * len(adapters)
    for i, names in enumerate(bound.blocks):
        check_block_names(names, where=f"recipe: blocks.{i}", base=base)
    for path in sorted({path for a in adapters for path in a.modules}):
        shape = _shape(adapters, path)
        weights = [w * block_weight(path, b, base) for w, b in zip(bound.weights, blocks, strict=True)]
        live = [i for i, a in enumerate(adapters) if path in a.modules and weights[i]]
        if live:
            yield Deltas(
                path=path,
                factors=tuple(reshaped(_moved(adapters[i].modules[path], device), shape) for i in live),
                weights=tuple(weights[i] for i in live),
                sources=tuple(bound.sources[i] for i in live),
            )


def _moved(factors: Factors, device: str | torch.device) -> Factors:
    return Factors(
        up=factors.up.detach().to(device, torch.float32),
        down=factors.down.detach().to(device, torch.float32),
        alpha=factors.alpha,
        shape=factors.shape,
    )


def _shape(adapters: Sequence[Adapter], path: str) -> tuple[int, ...]:
    """Shape of the weight that the sources change: of a 1 × 1 convolution, where one of them says so."""
    shapes = [(a.name, tuple(a.modules[path].shape)) for a in adapters if path in a.modules]
    if len({bare(shape) for _, shape in shapes}) > 1:
        listed = ", ".join(f"{name}: {shape}" for name, shape in shapes)
        raise RecipeError(
            f"the sources change weights of different shapes ({listed})", where=path, remedy="merge sources of one base model"
        )
    return max((shape for _, shape in shapes), key=len)


def _finite(factors: Factors, path: str) -> Factors:
    if bool(torch.isfinite(factors.up).all() & torch.isfinite(factors.down).all()):
        return factors
    raise RecipeError(
        "the merged change is not finite", where=path, remedy="look for NaN, infinite or huge values in this module of the sources"
    )
