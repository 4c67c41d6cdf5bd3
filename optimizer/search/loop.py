"""The loop: ask for a recipe, evaluate it, write it down, tell; until the budget or the time is spent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers._gp.sampler import _RELATIVE_PARAMS_KEY as _GP_NOTE

from optimizer.errors import NoFeasibleMerge
from optimizer.search.evaluate import Evaluator
from optimizer.search.ledger import Ledger, enqueue, reason_of, save_images
from optimizer.search.progress import Observer, Stopped
from optimizer.search.sampler import sampler_for
from optimizer.search.space import SearchSpace
from optimizer.search.warmstart import Start, baselines, defaults, idle_warning
from studies.records import TrialRecord

# Up to a quarter of the budget goes to recipes that people would try first, and up to as many trials to random ones, which tell the
# model of the space's far ends; it has the rest.
_SHARE, _RANDOM = 4, 4


@dataclass(frozen=True)
class Limits:
    """When the search ends: after ``budget`` trials beyond the baselines, or at ``deadline`` (``time.monotonic``), if any."""

    budget: int
    deadline: float | None = None

    def passed(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() > self.deadline


def first_trials(space: SearchSpace, budget: int) -> list[Start]:
    """The trials that a study of this budget begins with: the baselines, then the field's default recipes."""
    return [*baselines(space), *defaults(space, budget // _SHARE)]


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
        NoFeasibleMerge: base or sources cannot be rendered, so that nothing can be compared with them.
    """
    starts = first_trials(space, ledger.planned_budget)
    enqueue(ledger, [(s.label, s.values) for s in starts])
    total = len(baselines(space)) + limits.budget
    observer.stage("search", total)
    done = ledger.records()
    for record in done:
        observer.trial(record)
    startup = len(starts) + min(_RANDOM, ledger.planned_budget // _SHARE)
    for _ in range(total - len(done)):
        if limits.passed():
            return False
        _keep_baselines(ledger, evaluator)
        record = _one_trial(ledger, space, evaluator, seed, startup)
        observer.trial(record)
        if warning := idle_warning(record):
            observer.note(f"warning: {warning}")
    return True


def _keep_baselines(ledger: Ledger, evaluator: Evaluator) -> None:
    """Render what every trial is compared with, once; apart from the trials, which would all fail with it."""
    if evaluator.rendered:
        return
    try:
        found = evaluator.baselines
    except (Stopped, OSError):
        raise
    except Exception as error:
        problem = f"base and sources cannot be rendered: {reason_of(error)}"
        raise NoFeasibleMerge(problem, where=ledger.directory.path) from error
    save_images(ledger.directory, "baselines/base", found.base)
    for source, images in zip(evaluator.sources, found.alone, strict=True):
        save_images(ledger.directory, f"baselines/{source.name}", images)


def _one_trial(ledger: Ledger, space: SearchSpace, evaluator: Evaluator, seed: int, startup: int) -> TrialRecord:
    trial = _ask(ledger, space, seed, startup)
    try:
        recipe = space.suggest(trial)
        evaluation = ledger.known(recipe)
        if evaluation is None:
            measured = evaluator.evaluate(recipe)
            evaluation = ledger.keep(recipe, measured.evaluation, measured.images)
    except (Stopped, OSError):  # a full disk fails every trial
        raise
    except Exception as error:  # whatever a library raises: one recipe must not end a night's run
        return ledger.fail(trial, error)
    return ledger.tell(trial, recipe, evaluation)


def _ask(ledger: Ledger, space: SearchSpace, seed: int, startup: int) -> optuna.Trial:
    """The trial that was interrupted, else the next one; with a sampler that proposes the same for it in every process."""
    pending = ledger.pending()
    number = pending.number if pending else sum(t.state.is_finished() for t in ledger.study.get_trials(deepcopy=False))
    ledger.study.sampler = sampler_for(number, seed=seed, dimensions=space.dimensions, startup=startup)
    if pending is None:
        return ledger.study.ask()
    trial = optuna.Trial(ledger.study, pending._trial_id)  # Optuna has no public way to take up a running trial
    if not _whole(space, pending.params):
        # A part that was kept would leave the sampler's generator behind for the rest. A whole proposal is kept: a Gaussian process
        # that finds it among the running trials proposes something else; so it must not find its own note of this one either.
        trial._cached_frozen_trial.params.clear()
        trial._cached_frozen_trial.distributions.clear()
        trial.storage.set_trial_system_attr(pending._trial_id, f"{_GP_NOTE}:0", "")
    return trial


def _whole(space: SearchSpace, values: Mapping[str, Any]) -> bool:
    """Whether the values are a whole proposal."""
    try:
        space.suggest(optuna.trial.FixedTrial(dict(values)))
    except ValueError:
        return False
    return True
