"""Errors of routers in the modules themselves, from second moments and without a forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from optimizer.calibration.closed_form import Group, solved
from optimizer.calibration.live.routed_modules import RoutedModules, Routing

_ROUNDS, _RATE = 60, 2.0


class LocalErrors:
    """Relative errors of routers on each group of prompts.

    The error is Σ E‖up·(R − P)·z‖² / Σ E‖up·P·z‖² over all modules, with P the projector on the sources that the group asks for and z what
    the modules read when exactly these are active: tr[upᵀup·(R − P)·G·(R − P)ᵀ] with G = E[z·zᵀ].

    Args:
        modules: modules of the routers.
        found: groups of prompts.

    Attributes:
        sizes: denominator of each group, fp64, (groups,).
    """

    def __init__(self, modules: RoutedModules, found: Sequence[Group]) -> None:
        self._found = found
        self._grams = {path: _gram(modules, path) for path in found[0].moments}
        self.sizes = torch.stack([self._sum(group, None) for group in found])

    def of(self, routing: Routing) -> Tensor:
        """Returns the error of each group with these matrices, fp64, (groups,)."""
        return torch.stack([self._sum(group, routing) for group in self._found]) / self.sizes

    def _sum(self, group: Group, routing: Routing | None) -> Tensor:
        """Returns Σ tr[upᵀup·D·G·Dᵀ] over the modules, with D = R − P, or P for None."""
        total = torch.zeros((), dtype=torch.float64)
        for path, gram in self._grams.items():
            change = torch.diag(group.wanted[path]).double()
            if routing is not None:
                matrix = routing[path].double()
                change = (torch.diag(matrix) if matrix.ndim == 1 else matrix) - change
            total += (gram * (change @ group.moments[path] @ change.T)).sum()
        return total


def balanced(modules: RoutedModules, found: Sequence[Group], ridge: float) -> Routing:
    """Returns the least-squares routers whose largest relative error over the groups of prompts is smallest.

    The groups get weights that grow exponentially with their errors (multiplicative weights, Arora, Hazan & Kale 2012): a weighted sum of
    convex functions is minimised in closed form in every round.

    Args:
        modules: modules of the routers.
        found: groups of prompts.
        ridge: shrinkage towards the stack, as for ``solved``.
    """
    local = LocalErrors(modules, found)
    shares = torch.full((len(found),), 1 / len(found), dtype=torch.float64)
    best, least = solved(found, ridge), torch.inf
    for number in range(1, _ROUNDS + 1):
        weights = shares / local.sizes
        routing = solved(found, ridge, (weights / weights.mean()).tolist())
        errors = local.of(routing)
        if float(errors.max()) < least:
            best, least = routing, float(errors.max())
        shares = shares * torch.exp(_RATE / number**0.5 * errors / errors.max())
        shares = shares / shares.sum()
    return best


def _gram(modules: RoutedModules, path: str) -> Tensor:
    up = modules.factors(path)[0].double().cpu()
    return up.T @ up
