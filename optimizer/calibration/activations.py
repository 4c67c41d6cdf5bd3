"""Activations: second moments of what the sources' ``down`` factors read on the live model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.live.routed_modules import Routing
from optimizer.calibration.trajectories import Points, batches, encoded_rows, predicted

Moments = Mapping[str, Tensor]
"""Canonical module path → Σ z₁·z₂ᵀ / N over all tokens of all points, fp64, (Σr, Σr), where z = down_cat · x."""


@torch.no_grad()
def second_moments(model: LiveModel, points: Points, rows: Sequence[int], first: Routing, second: Routing | None = None) -> Moments:
    """Returns the second moments of z at some points, or the cross moments of z between two routings.

    Args:
        model: live model.
        points: points to compute at.
        rows: positions of the points.
        first: matrices of the modules.
        second: matrices of the modules for the second factor, on the same inputs; None for those of the first.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    with model.modules.installed():
        for some in batches(points, torch.tensor(list(rows)), model.renderer.settings.batch):
            one = _hidden(model, points, some, first)
            two = one if second is None else _hidden(model, points, some, second)
            for path, z in one.items():
                product = z.T.double() @ two[path].double()
                sums[path] = sums[path] + product if path in sums else product
                counts[path] = counts.get(path, 0) + len(z)
    return {path: (total / counts[path]).cpu() for path, total in sums.items()}


def _hidden(model: LiveModel, points: Points, rows: Tensor, routing: Routing) -> dict[str, Tensor]:
    """Returns z of every module at some points, (tokens, Σr), in the order in which a module computes."""
    found: dict[str, list[Tensor]] = {}
    with model.modules.at(routing), model.modules.observed(lambda path, z: found.setdefault(path, []).append(z.flatten(0, -2))):
        predicted(model, points, rows, encoded_rows(model, points, rows))
    return {path: torch.cat(parts) for path, parts in found.items()}
