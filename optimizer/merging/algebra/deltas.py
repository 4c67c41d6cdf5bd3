"""Deltas: the sources' ΔW of a batch of modules and their weights there; the input of every merge method."""

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
    """The sources' ΔW of ``b`` base weights of one shape.

    Sources that lack the modules, or whose weight there is 0, are not included.

    Attributes:
        paths: canonical module paths, b entries.
        terms: factors of ΔWᵢ at reference strength, on the computing device; one or more, in the sources' order.
        weights: signed weight of each source times its block weight at each module, (n, b), fp32, never 0.
        sources: SHA-256 of each source.
        every: signed weights times block weights of all sources of the recipe, also those that lack the modules, (N, b), fp32.
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
        """Weights in a shape that broadcasts over ``dense`` source by source: (n, b, 1, 1), fp32."""
        return self.weights[..., None, None]

    @property
    def dense(self) -> Slabs:
        """Dense ΔWᵢ of each source at reference strength, unweighted, (b, out, fan_in)."""
        up, down = self.terms[0].up, self.terms[0].down
        shape = (len(self.paths), up.shape[1], down.shape[2])
        return Slabs(len(self.terms), shape, up.device, lambda i, rows: self.terms[i].up[:, rows] @ self.terms[i].down)

    def uniform(self, seed: int, source: int) -> Callable[[slice, int], Tensor]:
        """Returns a function that draws uniform random numbers in [0, 1) for given rows and number of columns, (b, rows, columns), fp32.

        The numbers depend only on seed, SHA-256 of the source and module path. They are drawn on the CPU, module by module, so device,
        batch and the other sources have no effect. Rows must be requested in order; requesting row 0 restarts the stream.
        """
        streams = [np.random.SFC64() for _ in self.paths]

        def draw(rows: slice, columns: int) -> Tensor:
            if rows.start == 0:
                streams[:] = [np.random.SFC64(_seed(seed, self.sources[source], path)) for path in self.paths]
            drawn = [_uniform(stream, rows.stop - rows.start, columns) for stream in streams]
            return torch.stack(drawn).to(self.weights.device)

        return draw


def _uniform(stream: np.random.SFC64, rows: int, columns: int) -> Tensor:
    """Returns multiples of 2⁻²⁴ in [0, 1), (rows, columns), fp32: two per 64 random bits, in a third of the time of ``torch.rand``."""
    words = stream.random_raw(rows * ((columns + 1) // 2)).view(np.int32).reshape(rows, -1)
    return torch.from_numpy(words)[:, :columns].bitwise_right_shift(8).float().mul_(2.0**-24).add_(0.5)


def _seed(seed: int, source: str, path: str) -> int:
    digest = hashlib.sha256(f"{seed}\n{source}\n{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
