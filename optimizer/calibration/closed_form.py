"""Routers in closed form, from the activations of the live model: SSR-Merge (arXiv 2606.10617) with an anchor and joint prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer.calibration.activations import Moments, second_moments
from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.live.routed_modules import Routing
from optimizer.calibration.prompts import MEASURED
from optimizer.calibration.trajectories import Points

_EVERY = 3  # of the steps of a trajectory that are looked at


@dataclass(frozen=True)
class Group:
    """Prompts that ask for the same sources, and what the modules read on them.

    Attributes:
        wanted: matrices of the sources that are asked for, as diagonals.
        moments: second moments of z with these matrices.
        cross: moments of z with these matrices and z of the merge, E[z·z̃ᵀ]; of z alone before there is a merge.
        merged: second moments of z̃, what the modules read in the merge.
    """

    wanted: Routing
    moments: Moments
    cross: Moments
    merged: Moments


def groups(model: LiveModel, points: Points, merged: Routing | None = None) -> list[Group]:
    """Returns the prompts of each set of sources, with the moments that a closed form needs.

    Args:
        model: live model.
        points: points of the prompts' trajectories, of which every third step of the first ``MEASURED`` prompts of each kind is used.
        merged: routing of an earlier solution, whose activations are used as in IterIS (arXiv 2411.15231); None for those of the sources.
    """
    found = []
    for asked in torch.unique(points.asked, dim=0):
        prompts = (points.asked == asked).all(dim=1).nonzero()[:MEASURED, 0]
        rows = (torch.isin(points.prompt, prompts) & (points.step % _EVERY == 0)).nonzero()[:, 0].tolist()
        wanted = model.modules.selected(asked.tolist())
        own = second_moments(model, points, rows, wanted)
        if merged is None:
            found.append(Group(wanted, own, own, own))
        else:
            found.append(
                Group(wanted, own, second_moments(model, points, rows, wanted, merged), second_moments(model, points, rows, merged))
            )
    return found


def solved(found: Sequence[Group], ridge: float, weights: Sequence[float] = ()) -> Routing:
    """Returns the least-squares solution in every module, shrunk towards the stack.

    R = (Σ_S w_S·P_S·E[z·z̃ᵀ] + λI)(Σ_S w_S·E[z̃·z̃ᵀ] + λI)⁻¹.

    Args:
        found: groups of prompts S.
        ridge: λ relative to the mean of the diagonal of Σ_S w_S·E[z̃·z̃ᵀ].
        weights: weight w_S of each group; empty for equal ones.
    """
    each = list(zip(weights or [1.0] * len(found), found, strict=True))
    return {
        path: _solved([(group.wanted[path], w * group.cross[path], w * group.merged[path]) for w, group in each], ridge)
        for path in found[0].moments
    }


def _solved(parts: Sequence[tuple[Tensor, Tensor, Tensor]], ridge: float) -> Tensor:
    left = sum((wanted.double()[:, None] * cross for wanted, cross, _ in parts), torch.zeros_like(parts[0][1]))
    right = sum((merged for _, _, merged in parts), torch.zeros_like(parts[0][1]))
    anchor = ridge * right.diagonal().mean().clamp(min=1e-12) * torch.eye(len(right)).double()
    router: Tensor = torch.linalg.solve((right + anchor).T, (left + anchor).T).T
    return router.float()
