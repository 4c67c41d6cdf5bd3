"""Solving: the routers of recipes whose method needs the live model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from optimizer.adapters import Adapter
from optimizer.calibration.closed_form import Group, groups, solved
from optimizer.calibration.demand import SolvingDemand, describe_solving
from optimizer.calibration.gradient_fallback import GradientFallback
from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.live.routed_candidate import RoutedCandidate
from optimizer.calibration.live.routed_modules import Routing
from optimizer.calibration.local_error import balanced
from optimizer.calibration.training import Training, train
from optimizer.calibration.trajectories import Points, record
from optimizer.calibration.truncation import truncated
from optimizer.errors import RecipeError
from optimizer.merging import METHODS, NO_TEXTS, Recipe, Router, correction_of, with_correction
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.prompts import PromptSet

Progress = Callable[[str, int, int, float], None]
"""Called with what is done (``drawing``, ``measuring`` or ``training``), the number of finished units, of all, and the loss, or NaN."""

Watch = Callable[[int, Candidate], None]
"""Called with the number of a training step and the merge after it."""

COMPLETE = 100
"""Checkpoint of a finished training, and of methods that train nothing."""

WATCHED = 25
"""Number of training steps between two looks at the merge."""

_START = 0.8
_RATES = {"distill": 0.01, "zip": 0.03}


class Enough(Exception):
    """Raised by a progress callback to end the training early; the router of the last whole percentage of its steps is kept."""


@dataclass(frozen=True)
class Solution:
    """The solved routers of a recipe.

    Attributes:
        routers: percentage of the training steps → router, in ascending order; only 100 for methods that train nothing.
        losses: percentage of the training steps → smoothed training loss, the mean squared difference of guided outputs; empty for methods
            that train nothing.
        prompts: number of prompts that were used.
        seconds: time that solving took, without drawing that an earlier solution has done.
    """

    routers: Mapping[int, Router]
    losses: Mapping[int, float]
    prompts: int
    seconds: float

    @property
    def last(self) -> int:
        """Greatest percentage of the training steps that was reached."""
        return max(self.routers)


class Solver:
    """Solves routers on one set of prompts, whose trajectories are drawn once.

    ``distill`` trains the router until the merge's guided outputs equal those of the composition of the sources, at points of the
    composition's own trajectories, with a correction beside the sources that starts at 0 and is never asked for; ``zip`` trains only a
    factor on each rank; ``ssr`` is least squares in every module, and ``iteris``
    repeats it with the activations of the merge.

    Args:
        model: live model of the sources.
        adapters: sources, as they were read from their files.
        prompts: own and joint prompts to solve on; none that the merge will be judged by.
        points: points of the prompts' trajectories, as another solver has drawn them; None draws them when they are needed.
        fallback: how gradients fit into memory, as another solver has found out; its ``note`` receives one line about the memory that
            each solution needs, and one for each step that memory enforces. None says nothing.

    Attributes:
        points: points of the prompts' trajectories; None before they are drawn.
    """

    def __init__(
        self,
        model: LiveModel,
        adapters: Sequence[Adapter],
        prompts: PromptSet,
        points: Points | None = None,
        fallback: GradientFallback | None = None,
    ) -> None:
        self._model, self._adapters, self._prompts = model, adapters, prompts
        self._models: dict[int, LiveModel] = {0: model}
        self._measured: dict[int, _Measured] = {}
        self.points = points
        self._fallback = fallback or GradientFallback(lambda line: None)

    def solve(
        self, recipe: Recipe, checkpoints: Sequence[int] = (), progress: Progress = lambda *_: None, watch: Watch = lambda *_: None
    ) -> Solution:
        """Solves the routers of a recipe. Weights, block weights and dtype of the recipe do not matter.

        Args:
            recipe: recipe of a method that is solved on the live model, with its parameters and its seed.
            checkpoints: further percentages of the training steps whose routers are wanted beside that of the recipe.
            progress: called as the work goes on. An exception that it raises stops it; ``Enough`` ends the training early.
            watch: called after every training step whose number is a multiple of ``WATCHED``, and after the last one.

        Raises:
            RecipeError: the recipe's method is not solved on the live model.
            TrialError: pictures or the loss are not finite, or memory does not suffice.
        """
        begun = time.perf_counter()
        if not recipe.method_record.solved:
            names = ", ".join(name for name, method in METHODS.items() if method.solved)
            problem = f"the method {recipe.method!r} is not solved on the live model"
            raise RecipeError(problem, where="recipe: method", remedy=f"choose from {names}")
        model = self._model_with(recipe.correction)
        demand = SolvingDemand.of(model, recipe, self._prompts, self.points)
        self._fallback.note(describe_solving(demand, recipe, model.renderer.device, self._fallback))
        self._draw(progress)
        measured = self._measured.setdefault(recipe.correction, _Measured(model, self._points))
        if recipe.method in _RATES:
            found = dict(self._trained(recipe, measured, sorted({recipe.checkpoint, *checkpoints}), progress, watch))
        else:
            found = {COMPLETE: (self._closed(recipe, measured, progress), math.nan)}
        texts = self._model.untouched_texts if recipe.correction else NO_TEXTS
        sources = Router.identity(with_correction(self._adapters, recipe.correction, texts)).sources
        ranks = model.modules.ranks
        routers = {at: Router(sources, ranks, _cut(recipe, measured, routing), texts) for at, (routing, _) in sorted(found.items())}
        losses = {at: loss for at, (_, loss) in sorted(found.items()) if not math.isnan(loss)}
        return Solution(routers, losses, len(self._prompts), time.perf_counter() - begun)

    def _model_with(self, correction: int) -> LiveModel:
        """Returns the live model with a correction of some rank; 0 for none."""
        if correction not in self._models:
            own = correction_of(self._adapters, correction, self._model.untouched_texts)
            self._models[correction] = self._model.corrected(own)
        return self._models[correction]

    @property
    def _points(self) -> Points:
        assert self.points is not None
        return self.points

    def _draw(self, progress: Progress) -> None:
        """Draws the trajectories of the composition of all sources, unless that was done before."""
        if self.points is None:
            count = len(self._prompts)
            self.points = record(
                self._model, self._model.teacher, self._prompts.prompts, tick=lambda done: progress("drawing", done, count, math.nan)
            )

    def _closed(self, recipe: Recipe, measured: _Measured, progress: Progress) -> Routing:
        rounds = recipe.rounds if recipe.method_record.reads("rounds") else 0
        progress("measuring", 0, rounds + 1, math.nan)
        worst = recipe.method_record.reads("balance") and recipe.balance == "worst"
        found = measured.groups
        routing = balanced(measured.model.modules, found, recipe.ridge) if worst else solved(found, recipe.ridge)
        for number in range(rounds):
            progress("measuring", number + 1, rounds + 1, math.nan)
            routing = solved(groups(measured.model, self._points, routing), recipe.ridge)
        progress("measuring", rounds + 1, rounds + 1, math.nan)
        return routing

    def _trained(
        self, recipe: Recipe, measured: _Measured, wanted: Sequence[int], progress: Progress, watch: Watch
    ) -> Iterator[tuple[int, tuple[Routing, float]]]:
        """Yields the checkpoints, each with its matrices and its loss; after ``Enough``, the last whole percentage that was reached."""
        progress("measuring", 0, 1, math.nan)
        model, moments = measured.model, measured.moments
        progress("measuring", 1, 1, math.nan)
        start = {path: _START * own for path, own in model.modules.selected([True] * len(self._adapters)).items()}
        plan = Training(recipe.train_steps, diagonal=recipe.method == "zip", rate=_RATES[recipe.method], seed=recipe.seed)
        last = _first_step(wanted[-1], plan.steps)
        reached = 0
        latest: tuple[Routing, float] = start, math.nan
        for step in train(model, self._points, start, moments, plan, self._fallback):
            percentage = COMPLETE * step.number // plan.steps
            if percentage > reached:
                reached, latest = percentage, (step.routing(), step.loss)
                yield from ((at, latest) for at in wanted if _first_step(at, plan.steps) == step.number)
            if step.number % WATCHED == 0 or step.number == last:
                watch(step.number, RoutedCandidate(model.modules, step.routing()))
            if step.number == last:
                return
            try:
                progress("training", step.number, last, step.loss)
            except Enough:
                if not reached:
                    raise
                yield reached, latest
                return


class _Measured:
    """A live model and what is measured on it, once, at the points of the prompts' trajectories.

    Args:
        model: live model, with or without a correction.
        points: points of the trajectories.
    """

    def __init__(self, model: LiveModel, points: Points) -> None:
        self.model, self._points = model, points

    @cached_property
    def groups(self) -> list[Group]:
        """Prompts of each set of sources, with the moments of the composition."""
        return groups(self.model, self._points)

    @cached_property
    def moments(self) -> Routing:
        """Second moments of z over all groups of prompts."""
        return {path: torch.stack([group.moments[path] for group in self.groups]).mean(dim=0) for path in self.groups[0].moments}


def _cut(recipe: Recipe, measured: _Measured, routing: Routing) -> Routing:
    """Returns the matrices, truncated to the recipe's rank if it says so."""
    if not isinstance(recipe.rank, int) or recipe.truncation != "outputs":
        return routing
    return truncated(measured.model.modules, routing, measured.moments, recipe.rank)


def _first_step(percentage: int, steps: int) -> int:
    """Returns the number of the first step at which a percentage of all steps is done."""
    return -(-percentage * steps // COMPLETE)
