"""Retry of a merge whose decomposition did not converge: on the CPU, in double precision, one module at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from optimizer.errors import RecipeError
from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import Change, LowRank

LinAlgError: type[Exception] = torch.linalg.LinAlgError  # type: ignore[attr-defined]

Computed = tuple[Change, LowRank]
"""A method's result, and its compressed factors."""

_DECOMPOSITIONS = frozenset((torch.linalg.svd, torch.linalg.svdvals, torch.linalg.eigh, torch.linalg.eigvalsh, torch.linalg.qr))


def retried(compute: Callable[[Deltas], Computed], deltas: Deltas) -> Computed:
    """Returns the result of ``compute`` for each module separately, on the CPU, with all decompositions in double precision.

    All other operations stay in fp32: trimming, random masks and sign election use the same rounding as without a retry, so the result
    differs only by the rounding of the decompositions. Modules are computed one by one because one module that does not converge fails
    its whole batch, and so that the error can name it.

    Args:
        compute: merges the modules of the given deltas.
        deltas: deltas with finite values, on any device.

    Returns:
        Result of ``compute`` for all modules, fp32, on the device of the deltas.

    Raises:
        RecipeError: a decomposition also fails in double precision; names the module.
    """
    found = [_alone(compute, _only(deltas, index)) for index in range(len(deltas.paths))]
    device = deltas.weights.device
    return _joined([change for change, _ in found], device), _factors([factors for _, factors in found], device)


class _DoubleDecompositions(TorchFunctionMode):
    """Context in which torch's decompositions compute in double precision and round the result to the input dtype."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _DECOMPOSITIONS:
            return func(*args, **(kwargs or {}))
        matrix, *rest = args
        found = func(matrix.double(), *rest, **(kwargs or {}))
        return found.to(matrix.dtype) if isinstance(found, Tensor) else type(found)(part.to(matrix.dtype) for part in found)


def _alone(compute: Callable[[Deltas], Computed], module: Deltas) -> Computed:
    try:
        with _DoubleDecompositions():
            return compute(module)
    except LinAlgError as error:
        raise RecipeError(
            "the singular values of the merged change cannot be computed, in double precision neither",
            where=module.paths[0],
            remedy="look for huge values in this module of the sources, or give its block the weight 0",
        ) from error


def _only(deltas: Deltas, index: int) -> Deltas:
    """Returns the deltas of one module, on the CPU."""
    part = slice(index, index + 1)
    return replace(
        deltas,
        paths=deltas.paths[part],
        terms=tuple(LowRank(term.up[part].cpu(), term.down[part].cpu()) for term in deltas.terms),
        weights=deltas.weights[:, part].cpu(),
        every=deltas.every[:, part].cpu(),
    )


def _joined(changes: Sequence[Change], device: torch.device) -> Change:
    dense = [change for change in changes if isinstance(change, Tensor)]
    return torch.cat(dense).to(device) if dense else _factors([change for change in changes if isinstance(change, LowRank)], device)


def _factors(changes: Sequence[LowRank], device: torch.device) -> LowRank:
    return LowRank(torch.cat([change.up for change in changes]).to(device), torch.cat([change.down for change in changes]).to(device))
