"""Fused projections: one weight of the original code that holds several of diffusers' modules, one below the other.

Taking apart copies ``down`` and slices the rows of ``up``. Putting together stacks the ``down``s, with the ``up``s on the diagonal of
blocks; where all parts share one ``down``, as they do after taking apart, it stays one, and so does the rank. Both are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from optimizer.adapters.factors import Factors


def taken_apart(factors: Factors, paths: Sequence[str], rows: Sequence[int], swapped: bool) -> dict[str, Factors]:
    """The factors of each module that a weight of the original code holds.

    Args:
        factors: of the original's weight.
        paths: the modules, in the order of the weight's rows.
        rows: how many rows each has, in multiples of the weight's columns; empty for one module.
        swapped: the halves of the rows change places, where rows = 2 · columns.

    Raises:
        ValueError: the weight has another number of rows.
    """
    if len(paths) == 1:
        return {paths[0]: _swapped(factors) if swapped else factors}
    out, columns = factors.shape[0], factors.shape[1]
    if out != sum(rows) * columns:
        raise ValueError(f"has {out} rows and {columns} columns; {len(paths)} projections need {sum(rows)} · {columns} rows")
    shape = factors.shape[1:]
    ups = dict(zip(paths, torch.split(factors.up, [n * columns for n in rows]), strict=True))
    trained = {path: part for path, up in ups.items() if (part := _trimmed(up, factors))}
    # Putting together fills the rows of a module that nobody trained with zeros, which is no change.
    return trained or {path: replace(factors, up=up, shape=(up.shape[0], *shape)) for path, up in ups.items()}


def put_together(modules: Mapping[str, Factors], paths: Sequence[str], rows: Sequence[int], swapped: bool) -> Factors:
    """The factors of the original's weight: ``taken_apart``, the other way round; a module that is missing gets rows of zeros.

    Args:
        modules: module path → factors, at least one of ``paths`` among them.
        paths: the modules, in the order of the weight's rows.
        rows: how many rows each has, in multiples of the weight's columns; empty for one module.
        swapped: the halves of the rows change places, where rows = 2 · columns.

    Raises:
        ValueError: a module's shape does not fit in.
    """
    present = [modules[path] for path in paths if path in modules]
    if len(paths) == 1:
        return _swapped(present[0]) if swapped else present[0]
    columns = present[0].shape[1]
    heights = dict(zip(paths, (n * columns for n in rows), strict=True))
    for path, height in heights.items():
        if path in modules and modules[path].shape != (height, columns):
            raise ValueError(f"{path} has shape {modules[path].shape}; beside its neighbours it needs {(height, columns)}")
    scale, ups = _common_scale({path: modules[path] for path in paths if path in modules})
    shared = all(f.rank == present[0].rank and torch.equal(f.down, present[0].down) for f in present[1:])
    down = present[0].down if shared else torch.cat([f.down for f in present])
    up = _stacked(ups, heights, 0 if shared else down.shape[0])
    return Factors(up, down, scale * down.shape[0], (sum(heights.values()), columns))


def _common_scale(modules: Mapping[str, Factors]) -> tuple[float, dict[str, Tensor]]:
    """A scale for all, and each module's ``up`` for it; in fp32 where scales differ."""
    scales = {f.scale for f in modules.values()}
    if len(scales) == 1:
        return scales.pop(), {path: f.up for path, f in modules.items()}
    return 1.0, {path: f.up.float() * f.scale for path, f in modules.items()}


def _stacked(ups: Mapping[str, Tensor], heights: Mapping[str, int], columns: int) -> Tensor:
    """The ``up``s one below the other, zeros for a module without one; side by side, too, where ``columns`` says how many there are."""
    first, done, rows = next(iter(ups.values())), 0, []
    for path, height in heights.items():
        up = ups.get(path, first.new_zeros((height, 0 if columns else first.shape[1])))
        rest = columns - done - up.shape[1]
        rows.append(torch.cat([up.new_zeros((height, done)), up, up.new_zeros((height, rest))], dim=1) if columns else up)
        done += up.shape[1]
    return torch.cat(rows)


def turned(weight: Tensor) -> Tensor:
    """A weight with the two halves of its rows the other way round, where it has two: rows = 2 · columns."""
    return torch.cat(weight.chunk(2)[::-1]) if weight.shape[0] == 2 * weight.shape[1] else weight


def _swapped(factors: Factors) -> Factors:
    two = factors.shape[0] == 2 * factors.shape[1]
    return replace(factors, up=torch.cat(factors.up.chunk(2)[::-1])) if two else factors


def _trimmed(up: Tensor, factors: Factors) -> Factors | None:
    """One module's rows of ``up`` without the components that are 0 there; None where all are."""
    live = (up != 0).any(0)
    shape = (up.shape[0], *factors.shape[1:])
    if bool(live.all()):
        return replace(factors, up=up, shape=shape)
    rank = int(live.sum())
    return Factors(up[:, live], factors.down[live], factors.scale * rank, shape) if rank else None
