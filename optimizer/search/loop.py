"""The loop: ask for a recipe, evaluate it, write it down, tell; until the budget or the time is spent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from optimizer.errors import NoFeasibleMerge, StudyError, TrialError
from optimizer.search.config import Config
from optimizer.search.evaluation.evaluator import Evaluator
from optimizer.search.evaluation.heap import tidy
from optimizer.search.images.png import save_images
from optimizer.search.observer import Observer, Stopped
from optimizer.search.proposals.ask import proposed
from optimizer.search.proposals.initial_trials import Start, baselines, defaults, idle_warning
from optimizer.search.proposals.sampler import sampler_for
from optimizer.search.proposals.space import SearchSpace
from optimizer.search.trials.ledger import Ledger, label_of, reason_of
from optimizer.search.workers.claims import MOST_LOST, Idle, Turn, times_lost
from studies.records import TrialRecord

# Up to a quarter of the budget goes to recipes that people would try first, and up to as many trials to random ones, which tell the
# model of the space's far ends; it has the rest.
_SHARE, _RANDOM = 4, 4
_POLL = 2.0


def first_trials(space: SearchSpace, budget: int) -> list[Start]:
    """The trials that a study of this budget begins with: the baselines, then the field's default recipes."""
    return [*baselines(space), *defaults(space, budget // _SHARE)]


def begin_search(ledger: Ledger, space: SearchSpace, budget: int) -> None:
    """Queue the first trials, and allow as many as the budget holds beyond the baselines and what came from another study."""
    starts = first_trials(space, ledger.planned_budget)
    ledger.patience(lambda: ledger.enqueue([(s.label, s.values) for s in starts]))
    ledger.allow(len(baselines(space)) + ledger.imported + budget)


def search(ledger: Ledger, space: SearchSpace, evaluator: Evaluator, config: Config, *, deadline: float | None, observer: Observer) -> bool:
    """Evaluate trials until all that the study may have are done, together with whatever other workers there are.

    Args:
        ledger: the study; one that was interrupted goes on where it was.
        space: what may be proposed.
        evaluator: scores a recipe.
        config: says what proposes, and with which seed.
        deadline: start no trial after this (``time.monotonic``); none where not given.
        observer: is told of every trial, and may raise ``Stopped``.

    Returns:
        Whether all trials have ended.

    Raises:
        Stopped: from the observer; everything finished is on disk.
        NoFeasibleMerge: base or sources cannot be rendered, so that nothing can be compared with them.
    """
    observer.stage("search", ledger.total)
    told: set[int] = set()
    startup = len(first_trials(space, ledger.planned_budget)) + min(_RANDOM, ledger.planned_budget // _SHARE)
    sampler = partial(sampler_for, seed=config.seed, dimensions=space.dimensions, startup=startup, kind=config.sampler)
    while not passed(deadline):
        turn = ledger.take()
        trial = turn.trial
        if isinstance(trial, Idle):
            _tell_news(ledger, turn, observer, told)
            if trial is Idle.DONE:
                return True
            ledger.presence.note(state="waiting", trial=None)
            observer.waiting(_POLL)
            continue
        ledger.presence.note(state="working", trial=trial.number)
        try:
            _tell_news(ledger, turn, observer, told)
            _keep_baselines(ledger, evaluator)
            record = _evaluated(ledger, space, evaluator, trial, turn.known, sampler(trial.number))
        except Stopped:
            ledger.give_back(trial)
            raise
        ledger.presence.count(pictures=len(evaluator.prompts), finished=1, failed=int(record.evaluation is None))
        tidy()
    _tell_news(ledger, Turn(Idle.WAIT), observer, told)
    return False


def passed(deadline: float | None) -> bool:
    """Whether there is a deadline and it has passed."""
    return deadline is not None and time.monotonic() > deadline


def _tell_news(ledger: Ledger, turn: Turn, observer: Observer, told: set[int]) -> None:
    """Tell of the trials, of this and all other workers, that have ended since."""
    for record in ledger.records(turn.known):
        if record.number not in told:
            told.add(record.number)
            observer.trial(record)
            if warning := idle_warning(record):
                observer.note(f"warning: {warning}")


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
        raise NoFeasibleMerge(problem) from error
    if found.base is not None:
        save_images(ledger.store, "baselines/base", found.base)
    for source, images in zip(evaluator.sources, found.alone, strict=True):
        save_images(ledger.store, f"baselines/{source.name}", images)


def _evaluated(
    ledger: Ledger, space: SearchSpace, evaluator: Evaluator, trial: FrozenTrial, known: Sequence[FrozenTrial], sampler: BaseSampler
) -> TrialRecord:
    try:
        if times_lost(trial) >= MOST_LOST:
            raise TrialError(f"{MOST_LOST} workers ended while they evaluated it", remedy="see their logs")
        trial = ledger.propose(proposed(space, trial, known, sampler))
        recipe = space.recipe(trial.params)
        evaluation = ledger.known(recipe)
        if evaluation is None:
            measured = evaluator.evaluate(recipe)
            evaluation = ledger.keep(recipe, measured.evaluation, measured.images, label_of(trial))
    except (OSError, StudyError, Stopped):  # a full disk fails every trial
        raise
    except UpdateFinishedTrialError:  # another worker took this one for dead
        return ledger.ended(trial)
    except Exception as error:  # whatever a library raises: one recipe must not end a night's run
        return ledger.fail(trial, error)
    return ledger.tell(trial, recipe, evaluation)
