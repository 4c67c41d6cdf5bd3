"""The retry of a merge whose singular values were not found: on the CPU, in double precision, one module at a time."""

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
"""A method's result, and that compressed."""

_DECOMPOSITIONS = frozenset((torch.linalg.svd, torch.linalg.svdvals, torch.linalg.eigh, torch.linalg.eigvalsh, torch.linalg.qr))


def retried(compute: Callable[[Deltas], Computed], deltas: Deltas) -> Computed:
    """What ``compute`` gives for each module by itself, on the CPU, with every decomposition in double precision.

    All else stays in fp32: what a method trims, draws or elects follows the same rounding as in the modules that needed no retry, so the
    result differs from that of a first try by the rounding of the decompositions alone. A module by itself, since one that does not
    converge fails its whole stack, and to name it.

    Args:
        compute: merges the modules of the deltas that it is given.
        deltas: finite, on any device.

    Returns:
        As ``compute`` of all modules, fp32, on the device of the deltas.

    Raises:
        RecipeError: a decomposition fails again; names the module.
    """
    found = [_alone(compute, _only(deltas, index)) for index in range(len(deltas.paths))]
    device = deltas.weights.device
    return _joined([change for change, _ in found], device), _factors([factors for _, factors in found], device)


class _DoubleDecompositions(TorchFunctionMode):
    """Within it torch's decompositions compute in double precision, and round what they find to the dtype of what they were given."""

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
    """One of the modules, on the CPU."""
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
