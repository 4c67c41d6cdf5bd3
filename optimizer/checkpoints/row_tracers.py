"""Tracers: stand-ins for the tensors of a file that tell, after a conversion, from which rows of which tensor each result was made.

A conversion of state dictionaries renames, splits and joins tensors by rows, and turns some of them. Run on tensors whose entries are
numbers of rows, it shows what it does; run once on the shapes in a file's header, it needs no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_BITS = 32
_ROW = (1 << _BITS) - 1


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from.

    Attributes:
        tensor: name of the one in the file.
        shape: of the tensor that is made of it.
        runs: (first row, number of rows) in the file, in the order in which they follow each other in the tensor that is made.
        turned: it is the transpose of the one in the file.
    """

    tensor: str
    shape: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]
    turned: bool = False


class Tracers:
    """Stand-ins for tensors.

    Args:
        shapes: name → shape.

    Attributes:
        tensors: name → int64 tensor with all its rows, whose other dimensions are cut to two at most: what conversions join they copy,
            and in full width the copies would be larger than the model.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self._names = tuple(shapes)
        self.tensors = {name: _tracer(number, shapes[name]) for number, name in enumerate(self._names)}

    def origin(self, found: Tensor) -> Origin:
        """Where a tensor that a conversion made comes from.

        Raises:
            ValueError: it is neither rows of one tensor nor the transpose of one.
        """
        if found.dtype != torch.int64 or not found.numel():
            raise ValueError("it was made up")
        numbers = found >> _BITS
        name = self._names[int(numbers.flatten()[0])]
        shape, own = self._shapes[name], tuple(self.tensors[name].shape)
        if not bool((numbers == numbers.flatten()[0]).all()):
            raise ValueError(f"it is made of {name} and others")
        if (rows := _rows(found, own)) is not None:
            return Origin(name, (len(rows), *shape[1:]) if shape else (), _runs(rows))
        if found.ndim == 2 and (rows := _rows(found.T, own)) is not None and _runs(rows) == ((0, shape[0]),):
            return Origin(name, shape[::-1], ((0, shape[0]),), turned=True)
        raise ValueError(f"it is not made of rows of {name}")


def _tracer(number: int, shape: tuple[int, ...]) -> Tensor:
    rows = torch.arange(shape[0] if shape else 1) + (number << _BITS)
    return rows.view(-1, *(1 for _ in shape[1:])).expand(-1, *(min(size, 2) for size in shape[1:])) if shape else rows.view(())


def _rows(found: Tensor, own: tuple[int, ...]) -> Tensor | None:
    """The number of every row in the file; None where these are no rows of a tensor of this shape."""
    if found.ndim != len(own) or tuple(found.shape[1:]) != own[1:]:
        return None
    flat = (found & _ROW).reshape(len(found) if own else 1, -1)
    return flat[:, 0] if bool((flat == flat[:, :1]).all()) else None


def _runs(rows: Tensor) -> tuple[tuple[int, int], ...]:
    """Rows that follow each other, as (first, number)."""
    starts = [0, *((rows.diff() != 1).nonzero().flatten() + 1).tolist()]
    return tuple((int(rows[i]), end - i) for i, end in zip(starts, [*starts[1:], len(rows)], strict=True))
