"""Solving: the router of a method that needs the live model, from sources and prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from optimizer.adapters import Adapter
from optimizer.calibration import SOLVED
from optimizer.calibration.closed_form import groups, solved
from optimizer.calibration.compositions import Composition
from optimizer.calibration.live_model import LiveModel
from optimizer.calibration.routed_modules import Routing
from optimizer.calibration.training import Training, train
from optimizer.calibration.trajectories import Points, record
from optimizer.errors import RecipeError
from optimizer.merging import Router
from optimizer.rendering.prompts import PromptSet

Progress = Callable[[str, int, int, float], None]
"""Called with what is done (``drawing``, ``measuring`` or ``training``), the number of finished units, of all, and the loss, or NaN."""

_START = 0.8
_ROUNDS = 2


@dataclass(frozen=True)
class Solution:
    """A solved router.

    Attributes:
        router: router of all modules.
        loss: smoothed training loss at the end, the mean squared difference of guided outputs; NaN for closed forms.
        seconds: time that solving took.
    """

    router: Router
    loss: float
    seconds: float


def solve(
    method: str,
    model: LiveModel,
    adapters: Sequence[Adapter],
    prompts: PromptSet,
    *,
    steps: int = 150,
    ridge: float = 0.01,
    seed: int = 0,
    progress: Progress = lambda what, done, count, loss: None,
) -> Solution:
    """Solves a router on the live model.

    ``distill`` trains the router until the merge's guided outputs equal those of the composition of the sources, at points of the
    composition's own trajectories; ``zip`` trains only a factor on each rank; ``ssr`` is least squares in every module, and ``iteris``
    repeats it with the activations of the merge.

    Args:
        method: a name in ``SOLVED``.
        model: live model of the sources.
        adapters: sources, as they were read from their files.
        prompts: own and joint prompts to solve on; none that the merge will be judged by.
        steps: steps of training.
        ridge: shrinkage of closed forms towards the stack.
        seed: seed of the choice of points.
        progress: called as the work goes on; an exception that it raises stops it.

    Raises:
        RecipeError: there is no such method.
        TrialError: pictures or the loss are not finite, or memory does not suffice.
    """
    if method not in SOLVED:
        raise RecipeError(
            f"the method {method!r} is not solved on the live model", where="method", remedy=f"choose from {', '.join(SOLVED)}"
        )
    begun = time.perf_counter()
    teacher = Composition((1.0,) * len(adapters))
    points = record(model, teacher, prompts.prompts, lambda done: progress("drawing", done, len(prompts), float("nan")))
    loss = float("nan")
    if method in ("ssr", "iteris"):
        routing = _closed(model, points, ridge, _ROUNDS if method == "iteris" else 0, progress)
    else:
        progress("measuring", 0, 1, loss)
        moments = _pooled(model, points)
        start = {path: torch.full((sum(ranks),), _START) for path, ranks in model.modules.ranks.items()}
        plan = Training(steps, diagonal=method == "zip", rate=0.03 if method == "zip" else 0.01, seed=seed)
        for step in train(model, points, start, moments, plan):
            loss = step.loss
            progress("training", step.number, steps, loss)
        routing = step.routing()
    router = Router(Router.identity(adapters).sources, model.modules.ranks, routing)
    return Solution(router, loss, time.perf_counter() - begun)


def _pooled(model: LiveModel, points: Points) -> Routing:
    """Returns the second moments of z over all groups of prompts."""
    found = groups(model, points)
    return {path: torch.stack([group.moments[path] for group in found]).mean(dim=0) for path in found[0].moments}


def _closed(model: LiveModel, points: Points, ridge: float, rounds: int, progress: Progress) -> Routing:
    routing = solved(groups(model, points), ridge)
    progress("measuring", 1, rounds + 1, float("nan"))
    for number in range(rounds):
        routing = solved(groups(model, points, routing), ridge)
        progress("measuring", number + 2, rounds + 1, float("nan"))
    return routing
