"""Deltas: what all sources change in some modules, with their weights there; the input of every merge method."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from optimizer.merging.algebra.lowrank import LowRank
from optimizer.merging.algebra.tiles import Slabs


@dataclass(frozen=True, eq=False)
class Deltas:
    """The sources' changes of ``b`` base weights of one shape; sources that lack the modules, or whose weight there is 0, are not among
    them.

    Attributes:
        paths: canonical module paths, b of them.
        terms: ΔWᵢ at reference strength, on the device that computes; one or more, in the sources' order.
        weights: (n, b), fp32: the signed weight of each source times its block weight at each module, never 0.
        sources: SHA-256 of each source.
        every: (N, b), fp32: the same of all sources of the recipe, also those that lack the modules.
    """

    paths: tuple[str, ...]
    terms: tuple[LowRank, ...]
    weights: Tensor
    sources: tuple[str, ...]
    every: Tensor

    @property
    def total(self) -> Tensor:
        """Σ |wᵢ| over all sources of the recipe, (b,), fp32."""
        return self.every.abs().sum(dim=0)

    @property
    def columns(self) -> Tensor:
        """The weights in a shape that multiplies ``dense`` source by source: (n, b, 1, 1), fp32."""
        return self.weights[..., None, None]

    @property
    def dense(self) -> Slabs:
        """Each ΔWᵢ at reference strength, unweighted, (b, out, fan_in)."""
        up, down = self.terms[0].up, self.terms[0].down
        shape = (len(self.paths), up.shape[1], down.shape[2])
        return Slabs(len(self.terms), shape, up.device, lambda i, rows: self.terms[i].up[:, rows] @ self.terms[i].down)

    def uniform(self, seed: int, source: int) -> Callable[[slice, int], Tensor]:
        """Random numbers in [0, 1) for some rows and the number of columns, (b, rows, columns), fp32: a function of (seed, source's
        SHA-256, module path) alone.

        They are drawn on the CPU, module by module, so that device, batch and the other sources change nothing; the rows have to be
        asked for in order, which starts anew with the first.
        """
        streams = [np.random.SFC64() for _ in self.paths]

        def draw(rows: slice, columns: int) -> Tensor:
            if rows.start == 0:
                streams[:] = [np.random.SFC64(_seed(seed, self.sources[source], path)) for path in self.paths]
            drawn = [_uniform(stream, rows.stop - rows.start, columns) for stream in streams]
            return torch.stack(drawn).to(self.weights.device)

        return draw


def _uniform(stream: np.random.SFC64, rows: int, columns: int) -> Tensor:
    """Multiples of 2⁻²⁴ in [0, 1), (rows, columns), fp32: two of each 64 random bits, a third of what ``torch.rand`` takes."""
    words = stream.random_raw(rows * ((columns + 1) // 2)).view(np.int32).reshape(rows, -1)
    return torch.from_numpy(words)[:, :columns].bitwise_right_shift(8).float().mul_(2.0**-24).add_(0.5)


def _seed(seed: int, source: str, path: str) -> int:
    digest = hashlib.sha256(f"{seed}\n{source}\n{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
