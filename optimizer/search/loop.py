"""The optimization loop: ask for a recipe, evaluate it, store the result, tell Optuna; until the budget or the time limit is reached."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from objectives import MetricError
from optimizer.errors import NoFeasibleMerge, StudyError, TrialError, UsageError
from optimizer.search.config import Config
from optimizer.search.evaluation.evaluator import Evaluator
from optimizer.search.evaluation.heap import trim_heap
from optimizer.search.evaluation.identifiable import NOTHING_MEASURABLE, REMEDY, identifiable_warnings, left_out_of
from optimizer.search.evaluation.pruning import best_of
from optimizer.search.labels import is_baseline
from optimizer.search.observer import Observer, Stopped
from optimizer.search.patience import exhausted
from optimizer.search.proposals.ask import Axes, ask
from optimizer.search.proposals.initial_trials import Start, baselines, defaults, idle_warning
from optimizer.search.proposals.sampler import sampler_for
from optimizer.search.proposals.space import SearchSpace
from optimizer.search.trials.frozen_trials import label_of
from optimizer.search.trials.ledger import Ledger, TrialEndedError, reason_of
from optimizer.search.workers.claims import MOST_LOST, Idle, times_lost
from studies.front import axes_of
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
    ledger.enqueue([(s.label, s.values) for s in starts])
    ledger.extend(len(baselines(space)) + ledger.imported + budget, budget)


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
        UsageError: no source changes its pictures enough to be measured.
    """
    observer.stage("search", ledger.total)
    reported: set[int] = set()
    begun = sum(space.fixes(start.values) for start in first_trials(space, ledger.planned_budget))
    startup = begun + min(_RANDOM, ledger.planned_budget // _SHARE)
    sampler = partial(
        sampler_for,
        seed=config.search.seed,
        dimensions=space.dimensions,
        startup=startup,
        kind=config.search.sampler,
        axes=len(space.names) + 1 if config.search.pareto else 1,
    )
    while not passed(deadline):
        _end_without_gains(ledger, evaluator, config, observer)
        claim = ledger.take()
        trial = claim.trial
        if isinstance(trial, Idle):
            _report_ended(ledger, claim.known, observer, reported)
            if trial is Idle.DONE:
                return True
            observer.waiting(_POLL)
            continue
        try:
            _report_ended(ledger, claim.known, observer, reported)
            _save_baselines(ledger, evaluator, observer)
            axes = _axes(ledger, claim.known) if config.search.pareto else None
            _evaluate(ledger, space, evaluator, trial, claim.known, sampler(trial.number), axes)
        except (Stopped, UsageError):
            ledger.give_back(trial)
            raise
        trim_heap()
    _report_ended(ledger, (), observer, reported)
    return False


def _end_without_gains(ledger: Ledger, evaluator: Evaluator, config: Config, observer: Observer) -> None:
    """Ends the search if it has lost patience, and says so once."""
    patience, budget = config.search.patience, config.search.budget
    if patience is None:
        return
    records = ledger.records()
    if len(records) < ledger.total and exhausted(records, patience, ledger.since, evaluator.prompts):
        ledger.end_early(budget)
        observer.note(f"the last {patience} proposals have brought no gain beyond noise; the search ends (--patience)")


def passed(deadline: float | None) -> bool:
    """Returns whether the deadline has passed; False if there is none."""
    return deadline is not None and time.monotonic() > deadline


def _report_ended(ledger: Ledger, known: Sequence[FrozenTrial], observer: Observer, reported: set[int]) -> None:
    """Reports trials, of this and all other workers, that have ended since the last call."""
    for record in ledger.records(known):
        if record.number not in reported:
            reported.add(record.number)
            observer.trial(record)
            if warning := idle_warning(record):
                observer.note(f"warning: {warning}")


def _save_baselines(ledger: Ledger, evaluator: Evaluator, observer: Observer) -> None:
    """Renders the baselines once before the trials, because all trials would fail if the baselines cannot be rendered."""
    if evaluator.has_baselines:
        return
    names = [source.name for source in evaluator.sources]
    evaluator.left_out = left_out_of(ledger.records(), names)
    try:
        found = evaluator.render_baselines()
    except (Stopped, OSError):
        raise
    except Exception as error:
        what = "measured" if isinstance(error.__cause__, MetricError) else "rendered"
        problem = f"base and sources cannot be {what}: {reason_of(error)}"
        raise NoFeasibleMerge(problem) from error
    if found.base is not None:
        ledger.save_baseline("base", found.base)
    for source, images in zip(evaluator.sources, found.alone, strict=True):
        ledger.save_baseline(source.name, images)
    if len(found.left_out) == len(names):
        raise UsageError(NOTHING_MEASURABLE, where="--sources", remedy=REMEDY)
    for name in evaluator.aims.targets:
        if names.index(name) in found.left_out:
            raise UsageError(f"{name} is not identifiable, so nothing tells how much a merge keeps of it", where="--keep", remedy=REMEDY)
    for line in identifiable_warnings(found.left_out, names):
        observer.note(f"warning: {line}")


def _axes(ledger: Ledger, known: Sequence[FrozenTrial]) -> Axes:
    """Returns the values of the complete trials on the axes of the front; trials with values that are not finite are left out."""
    values = {record.number: axes_of(record.evaluation) for record in ledger.records(known) if record.evaluation}
    return {number: each for number, each in values.items() if all(map(math.isfinite, each))}


def _evaluate(
    ledger: Ledger,
    space: SearchSpace,
    evaluator: Evaluator,
    trial: FrozenTrial,
    known: Sequence[FrozenTrial],
    sampler: BaseSampler,
    axes: Axes | None,
) -> TrialRecord:
    try:
        if times_lost(trial) >= MOST_LOST:
            raise TrialError(f"{MOST_LOST} workers ended while they evaluated it", remedy="see their logs")
        trial, recipe = ask(ledger, space, trial, known, sampler, axes)
        recipe, solving = evaluator.calibrated(recipe)
        ledger.count_solving(solving)
        best = None if is_baseline(label_of(trial)) else best_of(ledger.records(known))
        stored = ledger.cached(recipe) or evaluator.still_pruned(ledger.cached(recipe, pruned=True), best)
        return ledger.record(trial, recipe, stored or evaluator.evaluate(recipe, best).after_solving(solving))
    except (OSError, StudyError, Stopped):  # these end the run: a full disk, for instance, fails every trial
        raise
    except TrialEndedError as ended:
        return ended.record
    except Exception as error:  # any library error: one failing recipe must not end the run
        return ledger.fail(trial, error)
