"""The optimization loop: ask for a recipe, evaluate it, store the result, tell Optuna; until the budget or the time limit is reached."""

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

# Up to 1/_SHARE of the budget is used for common default recipes, and as much, but at most _RANDOM trials, for random recipes, which give
# the surrogate model samples far from the defaults. The model proposes the rest.
_SHARE, _RANDOM = 4, 4
_POLL = 2.0


def first_trials(space: SearchSpace, budget: int) -> list[Start]:
    """Returns the trials that a study with this budget starts with: the baselines, then common default recipes."""
    return [*baselines(space), *defaults(space, budget // _SHARE)]


def begin_search(ledger: Ledger, space: SearchSpace, budget: int) -> None:
    """Queues the initial trials, and sets the trial limit to the baselines, the imported trials and the budget."""
    starts = first_trials(space, ledger.planned_budget)
    ledger.patience(lambda: ledger.enqueue([(s.label, s.values) for s in starts]))
    ledger.allow(len(baselines(space)) + ledger.imported + budget)


def search(ledger: Ledger, space: SearchSpace, evaluator: Evaluator, config: Config, *, deadline: float | None, observer: Observer) -> bool:
    """Evaluates trials, concurrently with other workers, until the study has no trials left.

    Args:
        ledger: storage of the study; an interrupted study is continued.
        space: search space of the study.
        evaluator: evaluator of the recipes.
        config: run configuration, with sampler kind and seed.
        deadline: time (``time.monotonic``) after which no trial is started; None for no limit.
        observer: receives every trial; may raise ``Stopped``.

    Returns:
        Whether all trials have ended.

    Raises:
        Stopped: raised by the observer; everything finished is on disk.
        NoFeasibleMerge: base or sources cannot be rendered, so that no trial can be scored.
    """
    observer.stage("search", ledger.total)
    told: set[int] = set()
    startup = len(first_trials(space, ledger.planned_budget)) + min(_RANDOM, ledger.planned_budget // _SHARE)
    sampler = partial(sampler_for, seed=config.search.seed, dimensions=space.dimensions, startup=startup, kind=config.search.sampler)
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
    """Returns whether the deadline has passed; False if there is none."""
    return deadline is not None and time.monotonic() > deadline


def _tell_news(ledger: Ledger, turn: Turn, observer: Observer, told: set[int]) -> None:
    """Reports trials, of this and all other workers, that have ended since the last call."""
    for record in ledger.records(turn.known):
        if record.number not in told:
            told.add(record.number)
            observer.trial(record)
            if warning := idle_warning(record):
                observer.note(f"warning: {warning}")


def _keep_baselines(ledger: Ledger, evaluator: Evaluator) -> None:
    """Renders the baselines once before the trials, because all trials would fail if the baselines cannot be rendered."""
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
    except (OSError, StudyError, Stopped):  # these end the run: a full disk, for instance, fails every trial
        raise
    except UpdateFinishedTrialError:  # another worker considered this one dead and finished the trial
        return ledger.ended(trial)
    except Exception as error:  # any library error: one failing recipe must not end the run
        return ledger.fail(trial, error)
    return ledger.tell(trial, recipe, evaluation)
