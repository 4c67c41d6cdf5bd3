"""Tiles of rows (``Slabs``): dense ΔW computed a few rows at a time, so that each tile stays in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Entries of a tile: small enough for a CPU's cache, large enough to use a GPU fully.
_FEW, _MANY = 2**17, 2**24

Rows = Callable[[int, slice], Tensor]


@dataclass(frozen=True, eq=False)
class Slabs:
    """Dense ΔW of the sources in a batch of modules, computed in tiles of rows on demand and not stored.

    The tiles can be iterated any number of times: recomputing a tile costs less than keeping all of them in memory.

    Attributes:
        count: number of sources, n.
        shape: shape of the dense batch, (b, rows, columns).
        device: device on which the tiles are computed.
        rows: returns the given rows of a source's ΔW as a new tensor, (b, rows of the tile, columns), fp32, which the caller may
            overwrite. The tiles of a source must be requested in order, because random numbers come in a stream; requesting its first
            row restarts the stream.
    """

    count: int
    shape: tuple[int, int, int]
    device: torch.device
    rows: Rows

    def __iter__(self) -> Iterator[slice]:
        """Yields the row range of each tile, in order."""
        limit = _MANY if self.device.type == "cuda" else _FEW
        step = max(1, limit // (self.shape[0] * self.shape[2]))
        return (slice(start, min(start + step, self.shape[1])) for start in range(0, self.shape[1], step))

    def merged(self, merge: Callable[[list[Tensor]], Tensor]) -> Tensor:
        """Returns the merged matrices, (b, rows, columns), tile by tile; ``merge`` may overwrite the sources' tiles."""
        whole = torch.empty(self.shape, device=self.device)
        for part in self:
            whole[:, part] = merge([self.rows(source, part) for source in range(self.count)])
        return whole

    def magnitudes(self, source: int) -> Tensor:
        """Returns |ΔW| of one source, (b, rows · columns)."""
        whole = torch.empty(self.shape, device=self.device)
        for part in self:
            torch.abs(self.rows(source, part), out=whole[:, part])
        return whole.flatten(1)

    def l1(self, source: int) -> Tensor:
        """Returns Σ |ΔW| of each module of one source, (b, 1, 1), fp32."""
        norms = [torch.linalg.vector_norm(self.rows(source, part), ord=1, dim=(1, 2), keepdim=True) for part in self]
        return torch.stack(norms).double().sum(dim=0).float()
