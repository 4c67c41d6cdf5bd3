"""Fast weighted sums of fixed sources: from one candidate to the next only the scale of each row of ``down`` changes."""

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
    """Weighted sums of the sources without zero weights: in every module ΔW = up_cat · diag(w) · down_cat.

    The result equals that of ``weighted_sum`` bit for bit, at a small part of its cost: ``up`` is concatenated and rounded once.

    Args:
        stacks: stacked modules of the sources.
        dtype: dtype to which the factors are rounded.
    """

    def __init__(self, stacks: Sequence[Stack], dtype: torch.dtype) -> None:
        self._parts = [_Part(stack, dtype) for stack in stacks]
        self._owners = torch.cat([part.owner for part in self._parts])
        self._ranks = [len(part.owner) for part in self._parts]
        self._greatest = max(part.greatest for part in self._parts)

    def at(self, weights: Tensor, blocks: Callable[[Stack], Tensor] | None) -> dict[str, Factors]:
        """Returns the weighted sum in every module, by canonical path.

        Args:
            weights: weights of all sources, (N,), fp32, on the sources' device.
            blocks: returns the block-weight factors at the modules of a stack, (N, b), fp32; None for no block weights.
        """
        modules: dict[str, Factors] = {}
        for part, rows in zip(self._parts, torch.split(weights[self._owners], self._ranks), strict=True):
            own = rows[:, None]
            modules.update(part.at(own if blocks is None else (own * blocks(part.stack)[part.owner]).mT[..., None]))
        return modules

    def allows(self, recipe: Recipe) -> bool:
        """Returns whether no weight of the recipe is 0 and no scaled entry can exceed the range of fp32."""
        factors = [max(map(abs, blocks.values()), default=1.0) for blocks in recipe.blocks]
        most = self._greatest * max(map(abs, recipe.weights)) * max([1.0, *factors])
        return all(recipe.weights) and all(all(blocks.values()) for blocks in recipe.blocks) and most < torch.finfo(torch.float32).max


class _Part:
    """Concatenated factors of one stack."""

    def __init__(self, stack: Stack, dtype: torch.dtype) -> None:
        device = stack.terms[0].up.device
        whole = concatenated(stack.terms, torch.ones(len(stack.terms), len(stack.paths), device=device))
        self.stack, self._dtype = stack, dtype
        self._ups, self._down = whole.up.to(dtype).unbind(), whole.down
        self.owner = torch.tensor([i for i, term in zip(stack.members, stack.terms, strict=True) for _ in range(term.rank)], device=device)
        extreme = float(whole.down.abs().amax())
        self.greatest = extreme if bool(torch.isfinite(whole.up).all()) and math.isfinite(extreme) else math.inf

    def at(self, rows: Tensor) -> zip[tuple[str, Factors]]:
        """Returns (path, factors) of each module's sum, for scales of the rows of ``down``, (R, 1) or (b, R, 1)."""
        downs = (self._down * rows).to(self._dtype).unbind()
        alpha, shape = float(len(self.owner)), self.stack.shape
        return zip(self.stack.paths, [Factors(up, down, alpha, shape) for up, down in zip(self._ups, downs, strict=True)], strict=True)
