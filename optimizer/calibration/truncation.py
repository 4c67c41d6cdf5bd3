"""Truncation of routers to a rank that keeps the most of the modules' outputs, instead of the most of ΔW.

With G = E[z·zᵀ] = LLᵀ, E‖up·(R − R′)·z‖² = ‖up·(R − R′)·L‖²: the best R′ of rank r projects the outputs on the first r left singular
vectors U of up·R·L (Eckart & Young 1936), up·R′ = U·Uᵀ·up·R. That is a router again, because U lies in the span of up's columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.calibration.activations import Moments
from optimizer.calibration.live.routed_modules import RoutedModules, Routing


def truncated(modules: RoutedModules, routing: Routing, moments: Moments, rank: int) -> Routing:
    """Returns routers whose changes of the modules have at most a rank, and differ least in what the modules return.

    Args:
        modules: modules of the routers.
        routing: matrix of every module.
        moments: second moments of z, what the ``down`` factors read.
        rank: highest rank of up_cat · R · down_cat.
    """
    found = {}
    for path, matrix in routing.items():
        full = torch.diag(matrix) if matrix.ndim == 1 else matrix
        found[path] = matrix if len(full) <= rank else _truncated(modules.factors(path)[0], full, moments[path], rank)
    return found


def _truncated(up: Tensor, router: Tensor, moments: Tensor, rank: int) -> Tensor:
    core = torch.linalg.qr(up.double().cpu()).R  # ‖up·x‖ = ‖core·x‖
    values, vectors = torch.linalg.eigh(moments.double())
    weighed = core @ router.double() @ (vectors * values.clamp(min=0).sqrt())
    left = torch.linalg.svd(weighed).U[:, :rank]
    projected: Tensor = torch.linalg.lstsq(core, left @ (left.T @ (core @ router.double())), driver="gelsd").solution.float()
    return projected
