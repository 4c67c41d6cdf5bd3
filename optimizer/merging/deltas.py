"""Deltas: what all sources change in some modules, with their weights there; the input of every merge method."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer.merging.lowrank import LowRank

Values = Callable[[], Iterator[Tensor]]
"""The sources' changes one after another, each a fresh (b, rows, columns) in fp32 that whoever takes it may overwrite.

They can be asked for as often as needed: computing a dense ΔW anew costs less than keeping those of all sources.
"""


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
        """The weights in a shape that multiplies ``dense()`` term by term: (n, b, 1, 1), fp32."""
        return self.weights[..., None, None]

    def dense(self) -> Iterator[Tensor]:
        """Each ΔWᵢ at reference strength, unweighted, (b, out, fan_in), fp32; a ``Values``."""
        return (term.dense() for term in self.terms)

    def uniform(self, seed: int, source: int, like: Tensor) -> Tensor:
        """Random numbers in [0, 1) of the shape of ``like``, (b, rows, columns), fp32: a function of (seed, source's SHA-256, module
        path) alone.

        They are drawn on the CPU, module by module, so that order, device, batch and the other sources change nothing.
        """
        seeds = [_seed(seed, self.sources[source], path) for path in self.paths]
        return torch.stack([torch.rand(like.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]).to(like.device)


def _seed(seed: int, source: str, path: str) -> int:
    digest = hashlib.sha256(f"{seed}\n{source}\n{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
