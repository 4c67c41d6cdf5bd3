"""Sums: the weighted sum of the same sources again and again, where from one candidate to the next only a factor on each row changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optimizer.adapters.factors import Factors
from optimizer.merging.algebra.lowrank import concatenated
from optimizer.merging.module_batches import Stack
from optimizer.merging.recipe import Recipe


class Sums:
    """All weighted sums of the sources in which no weight is 0: in every module ΔW = up_cat · diag(w) · down_cat.

    They are what ``weighted_sum`` gives, to the bit, at a small part of its cost: ``up`` is joined and rounded once.

    Args:
        stacks: the sources' modules.
        dtype: what the factors are rounded to.
    """

    def __init__(self, stacks: Sequence[Stack], dtype: torch.dtype) -> None:
        self._parts = [_Part(stack, dtype) for stack in stacks]
        self._owners = torch.cat([part.owner for part in self._parts])
        self._ranks = [len(part.owner) for part in self._parts]
        self._greatest = max(part.greatest for part in self._parts)

    def at(self, weights: Tensor, blocks: Callable[[Stack], Tensor] | None) -> dict[str, Factors]:
        """The sum in every module.

        Args:
            weights: of all sources, (N,), fp32, on the sources' device.
            blocks: the factors on them at the modules of a stack, (N, b), fp32, or None for none.
        """
        modules: dict[str, Factors] = {}
        for part, rows in zip(self._parts, torch.split(weights[self._owners], self._ranks), strict=True):
            own = rows[:, None]
            modules.update(part.at(own if blocks is None else (own * blocks(part.stack)[part.owner]).mT[..., None]))
        return modules

    def allows(self, recipe: Recipe) -> bool:
        """Whether no weight of the recipe is 0 anywhere, and no sum so large that it could not be a number."""
        factors = [max(map(abs, blocks.values()), default=1.0) for blocks in recipe.blocks]
        most = self._greatest * max(map(abs, recipe.weights)) * max([1.0, *factors])
        return all(recipe.weights) and all(all(blocks.values()) for blocks in recipe.blocks) and most < torch.finfo(torch.float32).max


class _Part:
    """One stack's factors, joined."""

    def __init__(self, stack: Stack, dtype: torch.dtype) -> None:
        device = stack.terms[0].up.device
        whole = concatenated(stack.terms, torch.ones(len(stack.terms), len(stack.paths), device=device))
        self.stack, self._dtype = stack, dtype
        self._ups, self._down = whole.up.to(dtype).unbind(), whole.down
        self.owner = torch.tensor([i for i, term in zip(stack.members, stack.terms, strict=True) for _ in range(term.rank)], device=device)
        extreme = float(whole.down.abs().amax())
        self.greatest = extreme if bool(torch.isfinite(whole.up).all()) and math.isfinite(extreme) else math.inf

    def at(self, rows: Tensor) -> zip[tuple[str, Factors]]:
        """The modules with their sums, at factors on the rows of ``down``, (R, 1) or (b, R, 1)."""
        downs = (self._down * rows).to(self._dtype).unbind()
        alpha, shape = float(len(self.owner)), self.stack.shape
        return zip(self.stack.paths, [Factors(up, down, alpha, shape) for up, down in zip(self._ups, downs, strict=True)], strict=True)
