"""Fused projections: one weight of the original code that holds several diffusers modules, stacked by rows.

Splitting copies ``down`` and slices the rows of ``up``. Fusing stacks the ``down`` factors, with the ``up`` factors as a block-diagonal
matrix. If all modules share one ``down``, as they do after splitting, it is kept once and the rank does not grow. Both are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from optimizer.adapters.factors import Factors


def split_fused(factors: Factors, paths: Sequence[str], rows: Sequence[int], swapped: bool) -> dict[str, Factors]:
    """Splits the factors of a fused weight into the factors of each module.

    Args:
        factors: factors of the fused weight.
        paths: module paths, in the order of the weight's rows.
        rows: number of rows per module, in multiples of the weight's columns; empty for one module.
        swapped: if True, swap the two halves of the rows of a weight with rows = 2 · columns.

    Raises:
        ValueError: the weight has another number of rows.
    """
    if len(paths) == 1:
        return {paths[0]: _swap_rows(factors) if swapped else factors}
    out, columns = factors.shape[0], factors.shape[1]
    if out != sum(rows) * columns:
        raise ValueError(f"has {out} rows and {columns} columns; {len(paths)} projections need {sum(rows)} · {columns} rows")
    shape = factors.shape[1:]
    ups = dict(zip(paths, torch.split(factors.up, [n * columns for n in rows]), strict=True))
    trained = {path: part for path, up in ups.items() if (part := _without_zeros(up, factors))}
    # Fusing fills the rows of an untrained module with zeros, so that its ΔW is 0.
    return trained or {path: replace(factors, up=up, shape=(up.shape[0], *shape)) for path, up in ups.items()}


def fuse(modules: Mapping[str, Factors], paths: Sequence[str], rows: Sequence[int], swapped: bool) -> Factors:
    """Fuses the factors of several modules into those of one weight, the inverse of ``split_fused``; missing modules get zero rows.

    Args:
        modules: module path → factors, at least one of ``paths`` among them.
        paths: module paths, in the order of the weight's rows.
        rows: number of rows per module, in multiples of the weight's columns; empty for one module.
        swapped: if True, swap the two halves of the rows of a weight with rows = 2 · columns.

    Raises:
        ValueError: a module's shape does not fit the fused weight.
    """
    present = [modules[path] for path in paths if path in modules]
    if len(paths) == 1:
        return _swap_rows(present[0]) if swapped else present[0]
    columns = present[0].shape[1]
    heights = dict(zip(paths, (n * columns for n in rows), strict=True))
    for path, height in heights.items():
        if path in modules and modules[path].shape != (height, columns):
            raise ValueError(f"{path} has shape {modules[path].shape}; beside its neighbours it needs {(height, columns)}")
    scale, ups = _common_scale({path: modules[path] for path in paths if path in modules})
    shared = all(f.rank == present[0].rank and torch.equal(f.down, present[0].down) for f in present[1:])
    down = present[0].down if shared else torch.cat([f.down for f in present])
    up = _stack(ups, heights, 0 if shared else down.shape[0])
    return Factors(up, down, scale * down.shape[0], (sum(heights.values()), columns))


def _common_scale(modules: Mapping[str, Factors]) -> tuple[float, dict[str, Tensor]]:
    """Returns one common scale and each module's ``up`` for that scale; in fp32 if the scales differ."""
    scales = {f.scale for f in modules.values()}
    if len(scales) == 1:
        return scales.pop(), {path: f.up for path, f in modules.items()}
    return 1.0, {path: f.up.float() * f.scale for path, f in modules.items()}


def _stack(ups: Mapping[str, Tensor], heights: Mapping[str, int], columns: int) -> Tensor:
    """Returns the ``up`` factors stacked by rows, zeros for a missing module; block-diagonal with ``columns`` columns if that is not 0."""
    first, done, rows = next(iter(ups.values())), 0, []
    for path, height in heights.items():
        up = ups.get(path, first.new_zeros((height, 0 if columns else first.shape[1])))
        rest = columns - done - up.shape[1]
        rows.append(torch.cat([up.new_zeros((height, done)), up, up.new_zeros((height, rest))], dim=1) if columns else up)
        done += up.shape[1]
    return torch.cat(rows)


def swap_halves(weight: Tensor) -> Tensor:
    """Returns the weight with the two halves of its rows swapped if rows = 2 · columns, else unchanged."""
    return torch.cat(weight.chunk(2)[::-1]) if weight.shape[0] == 2 * weight.shape[1] else weight


def _swap_rows(factors: Factors) -> Factors:
    two = factors.shape[0] == 2 * factors.shape[1]
    return replace(factors, up=torch.cat(factors.up.chunk(2)[::-1])) if two else factors


def _without_zeros(up: Tensor, factors: Factors) -> Factors | None:
    """Returns the factors for one module's rows of ``up`` without components that are 0 there; None if all are 0."""
    live = (up != 0).any(0)
    shape = (up.shape[0], *factors.shape[1:])
    if bool(live.all()):
        return replace(factors, up=up, shape=shape)
    rank = int(live.sum())
    return Factors(up[:, live], factors.down[live], factors.scale * rank, shape) if rank else None
