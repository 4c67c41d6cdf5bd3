"""Slabs: dense changes made a few rows at a time, so that all steps on a slab find it in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Entries of a slab: few enough for a CPU's cache, enough to keep a GPU busy.
_FEW, _MANY = 2**17, 2**24

Rows = Callable[[int, slice], Tensor]


@dataclass(frozen=True, eq=False)
class Slabs:
    """The sources' changes of some modules as dense matrices, made as they are needed and not kept.

    They can be gone through as often as needed: computing a slab anew costs less than keeping all of them.

    Attributes:
        count: number of sources, n.
        shape: (b, rows, columns).
        device: where they are made.
        rows: the given rows of a source's change, a fresh (b, rows of the slab, columns) in fp32 that whoever takes it may overwrite. A
            source's slabs have to be asked for in order, which starts anew with its first row: random numbers come in a stream.
    """

    count: int
    shape: tuple[int, int, int]
    device: torch.device
    rows: Rows

    def __iter__(self) -> Iterator[slice]:
        """The rows of each slab, in order."""
        limit = _MANY if self.device.type == "cuda" else _FEW
        step = max(1, limit // (self.shape[0] * self.shape[2]))
        return (slice(start, min(start + step, self.shape[1])) for start in range(0, self.shape[1], step))

    def merged(self, merge: Callable[[list[Tensor]], Tensor]) -> Tensor:
        """(b, rows, columns), each slab made of the sources' slabs; ``merge`` may overwrite them."""
        whole = torch.empty(self.shape, device=self.device)
        for part in self:
            whole[:, part] = merge([self.rows(source, part) for source in range(self.count)])
        return whole

    def magnitudes(self, source: int) -> Tensor:
        """|ΔW| of one source, (b, rows · columns)."""
        whole = torch.empty(self.shape, device=self.device)
        for part in self:
            torch.abs(self.rows(source, part), out=whole[:, part])
        return whole.flatten(1)

    def l1(self, source: int) -> Tensor:
        """Σ |ΔW| of each module of one source, (b, 1, 1), fp32."""
        norms = [torch.linalg.vector_norm(self.rows(source, part), ord=1, dim=(1, 2), keepdim=True) for part in self]
        return torch.stack(norms).double().sum(dim=0).float()
