"""Deltas: what all sources change in one module, with their weights there; the input of every merge method."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer.adapters.factors import Factors
from optimizer.merging.lowrank import dense


@dataclass(frozen=True, eq=False)
class Deltas:
    """The sources' changes of one base weight; sources that lack the module, or whose weight here is 0, are not among them.

    Attributes:
        path: canonical module path.
        factors: ΔWᵢ at reference strength, on the device that computes; one or more.
        weights: the signed weight of each times its block weight here, never 0.
        sources: SHA-256 of each source.
    """

    path: str
    factors: tuple[Factors, ...]
    weights: tuple[float, ...]
    sources: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the base weight, (out, in) or (out, in, kh, kw)."""
        return self.factors[0].shape

    def dense(self) -> Tensor:
        """All ΔWᵢ at reference strength, unweighted: (n, out, fan_in), fp32."""
        return torch.stack([dense(f) for f in self.factors])

    def column(self) -> Tensor:
        """The weights in a shape that multiplies ``dense()``: (n, 1, 1), fp32."""
        return torch.tensor(self.weights, dtype=torch.float32, device=self.factors[0].up.device)[:, None, None]

    def generators(self, seed: int) -> tuple[torch.Generator, ...]:
        """One random stream a source, a function of (seed, source's SHA-256, module path) alone.

        They live on the CPU, so that order, device and the other sources change nothing.
        """
        return tuple(torch.Generator().manual_seed(_seed(seed, source, self.path)) for source in self.sources)


def _seed(seed: int, source: str, path: str) -> int:
    digest = hashlib.sha256(f"{seed}\n{source}\n{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
