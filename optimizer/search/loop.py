"""The loop: ask for a recipe, evaluate it, write it down, tell; until the budget or the time is spent."""

from __future__ import annotations

import time
from dataclasses import dataclass

import optuna

from optimizer.errors import OptimizerError
from optimizer.search.evaluate import Evaluator
from optimizer.search.ledger import Ledger, enqueue
from optimizer.search.progress import Observer
from optimizer.search.sampler import sampler_for
from optimizer.search.space import SearchSpace
from optimizer.search.warmstart import baselines, defaults
from studies.records import TrialRecord

# A quarter of the budget goes to recipes that people would try first, another to random ones; the sampler has the rest.
_SHARE = 4


@dataclass(frozen=True)
class Limits:
    """When the search ends: after ``budget`` trials beyond the baselines, or at ``deadline`` (``time.monotonic``), if any."""

    budget: int
    deadline: float | None = None

    def passed(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() > self.deadline


def search(ledger: Ledger, space: SearchSpace, evaluator: Evaluator, limits: Limits, *, seed: int, observer: Observer) -> bool:
    """Run trials until budget or time is spent.

    Args:
        ledger: the study on disk; a study that was interrupted goes on where it was.
        space: what may be proposed.
        evaluator: scores a recipe.
        limits: budget and deadline.
        seed: of the proposals.
        observer: is told of every trial, and may raise ``Stopped``.

    Returns:
        Whether the whole budget was spent.

    Raises:
        Stopped: from the observer; everything finished is on disk.
    """
    first = baselines(space)
    enqueue(ledger, [(s.label, s.values) for s in [*first, *defaults(space, limits.budget // _SHARE)]])
    total = len(first) + limits.budget
    observer.stage("search", total)
    done = ledger.records()
    for record in done:
        observer.trial(record)
    for _ in range(total - len(done)):
        if limits.passed():
            return False
        observer.trial(_one_trial(ledger, space, evaluator, seed, startup=len(first) + limits.budget // (_SHARE // 2)))
    return True


def _one_trial(ledger: Ledger, space: SearchSpace, evaluator: Evaluator, seed: int, startup: int) -> TrialRecord:
    trial = _ask(ledger, space, seed, startup)
    try:
        recipe = space.suggest(trial)
        evaluation = ledger.known(recipe)
        if evaluation is None:
            measured = evaluator.evaluate(recipe)
            evaluation = ledger.keep(recipe, measured.evaluation, measured.images)
    except (OptimizerError, ArithmeticError, RuntimeError) as error:  # out of memory and failed decompositions are RuntimeErrors
        return ledger.fail(trial, error)
    return ledger.tell(trial, recipe, evaluation)


def _ask(ledger: Ledger, space: SearchSpace, seed: int, startup: int) -> optuna.Trial:
    """The trial that was interrupted, with the parameters that it had; else the next one."""
    pending = ledger.pending()
    number = pending.number if pending else sum(t.state.is_finished() for t in ledger.study.get_trials(deepcopy=False))
    ledger.study.sampler = sampler_for(number, seed=seed, dimensions=space.dimensions, conditional=space.conditional, startup=startup)
    if pending is None:
        return ledger.study.ask()
    return optuna.Trial(ledger.study, pending._trial_id)  # Optuna has no public way to take up a running trial
