"""Tracers: placeholder tensors that record which rows of which file tensor a conversion uses for each of its results.

A state dict conversion renames, splits and concatenates tensors by rows, and transposes some of them. Applied to tensors whose entries
are row numbers, it reveals this mapping. It needs only the shapes in a file's header, not the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_BITS = 32
_ROW = (1 << _BITS) - 1


@dataclass(frozen=True)
class StoredRows:
    """The rows of a file tensor that a converted tensor is made of.

    Attributes:
        tensor: key of the tensor in the file.
        shape: shape of the converted tensor.
        runs: (first row, number of rows) in the file tensor, in the row order of the converted tensor.
        transposed: whether the converted tensor is the transpose of the file tensor.
    """

    tensor: str
    shape: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]
    transposed: bool = False


class Tracers:
    """Placeholder tensors for the tensors of a file.

    Args:
        shapes: key → shape.

    Attributes:
        tensors: key → int64 tensor with all rows and all other dimensions truncated to at most 2. Conversions copy the tensors that they
            concatenate, and copies of full width would be larger than the model.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self._names = tuple(shapes)
        self.tensors = {name: _tracer(number, shapes[name]) for number, name in enumerate(self._names)}

    def rows_of(self, found: Tensor) -> StoredRows:
        """Returns the rows that a tensor is made of, which a conversion made.

        Raises:
            ValueError: the tensor is neither made of rows of one file tensor nor the transpose of one.
        """
        if found.dtype != torch.int64 or not found.numel():
            raise ValueError("it was made up")
        numbers = found >> _BITS
        name = self._names[int(numbers.flatten()[0])]
        shape, own = self._shapes[name], tuple(self.tensors[name].shape)
        if not bool((numbers == numbers.flatten()[0]).all()):
            raise ValueError(f"it is made of {name} and others")
        if (rows := _rows(found, own)) is not None:
            return StoredRows(name, (len(rows), *shape[1:]) if shape else (), _runs(rows))
        if found.ndim == 2 and (rows := _rows(found.T, own)) is not None and _runs(rows) == ((0, shape[0]),):
            return StoredRows(name, shape[::-1], ((0, shape[0]),), transposed=True)
        raise ValueError(f"it is not made of rows of {name}")


def _tracer(number: int, shape: tuple[int, ...]) -> Tensor:
    rows = torch.arange(shape[0] if shape else 1) + (number << _BITS)
    return rows.view(-1, *(1 for _ in shape[1:])).expand(-1, *(min(size, 2) for size in shape[1:])) if shape else rows.view(())


def _rows(found: Tensor, own: tuple[int, ...]) -> Tensor | None:
    """Returns the row numbers in the file tensor; None if the tensor does not consist of its rows."""
    if found.ndim != len(own) or tuple(found.shape[1:]) != own[1:]:
        return None
    flat = (found & _ROW).reshape(len(found) if own else 1, -1)
    return flat[:, 0] if bool((flat == flat[:, :1]).all()) else None


def _runs(rows: Tensor) -> tuple[tuple[int, int], ...]:
    """Returns the runs of consecutive rows as (first row, number of rows)."""
    starts = [0, *((rows.diff() != 1).nonzero().flatten() + 1).tolist()]
    return tuple((int(rows[i]), end - i) for i, end in zip(starts, [*starts[1:], len(rows)], strict=True))
