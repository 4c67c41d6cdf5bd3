"""The ledger: writes the results of trials to the store, the trial log and Optuna's storage, in an order that is safe against crashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import distribution_to_json
from optuna.trial import BaseTrial, FrozenTrial, TrialState
from torch import Tensor

from optimizer.errors import OptimizerError, StudyError
from optimizer.merging import Recipe
from optimizer.search.images.contact_sheets import sheet_links
from optimizer.search.images.retention import Gallery
from optimizer.search.labels import BUDGET, ERROR, FIXED, IMPORTED, INPUTS, KEY, LABEL, TOTAL
from optimizer.search.trials.frozen_trials import waiting_trial
from optimizer.search.trials.optuna_notes import ending, introduce
from optimizer.search.workers.claims import Claims, Idle, Turn, counted
from optimizer.search.workers.heartbeat import Presence
from optimizer.search.workers.retry import OUTAGES, Patience
from optimizer.search.workers.trial_writes import Ending, Writes
from optimizer.text import one_line
from studies import EvaluationCache, StudyDirectory, evaluation_key
from studies.records import Evaluation, TrialRecord
from studies.store import Store
from studies.trial_log import StudyEntry, TrialEntry, TrialLog


@dataclass(frozen=True)
class Ledger:
    """The storage of one study: Optuna's study, the evaluation cache, the trial log and the pictures.

    An evaluation is written to the store before it is reported to Optuna. Every call to Optuna is idempotent, and is retried while a
    database is unavailable.

    Attributes:
        study: Optuna study.
        store: store of evaluations, trial log and pictures.
        context: all inputs besides the recipe that an evaluation depends on.
        claims: assignment of trials to workers.
        writes: writer of trial results.
        presence: heartbeat of this worker.
        patience: retry policy for the storage.
        gallery: retention policy for the pictures.
    """

    study: optuna.Study
    store: Store
    context: Mapping[str, object]
    claims: Claims
    writes: Writes
    presence: Presence
    patience: Patience
    gallery: Gallery
    _known: dict[int, TrialRecord] = field(default_factory=dict)

    @property
    def cache(self) -> EvaluationCache:
        """Evaluation cache, which is authoritative for the results."""
        return EvaluationCache(self.store)

    @property
    def planned_budget(self) -> int:
        """Budget that the study started with. Search space and initial trials depend on it, and do not change when the budget grows."""
        return int(self.patience(lambda: self.study.user_attrs)[BUDGET])

    @property
    def total(self) -> int:
        """Present trial limit of the study, baselines included."""
        return int(self.patience(lambda: self.study.user_attrs).get(TOTAL, 0))

    @property
    def imported(self) -> int:
        """Number of trials beyond the baselines that were imported from another study; they do not count towards the budget."""
        return sum(bool(t.user_attrs.get(IMPORTED)) for t in self.patience(lambda: counted(self.study.get_trials(deepcopy=False))))

    def allow(self, total: int) -> None:
        """Sets the trial limit of the study."""
        self.patience(lambda: self.study.set_user_attr(TOTAL, total))

    def known(self, recipe: Recipe) -> Evaluation | None:
        """Returns the stored evaluation of a recipe, by this or another worker or an earlier run, or None."""
        return self.cache.get(self.key(recipe))

    def keep(self, recipe: Recipe, evaluation: Evaluation, images: Tensor, label: str = "") -> Evaluation:
        """Writes the pictures, unless better trials have displaced them, then the evaluation that lists them; both are durable on return.


        If another worker, which considered this one dead, was first, its evaluation is kept and returned.
        """
        files = self.gallery.hang(self.store, recipe, images, stay=self.gallery.has_room(self._known, label, evaluation))
        stands = self.cache.add(self.key(recipe), evaluation.model_copy(update={"images": files}))
        for file in set(files) - set(stands.images):  # removed by another worker meanwhile
            self.store.remove(file)
        return stands

    def enqueue(self, starts: Sequence[tuple[str, Mapping[str, object]]]) -> None:
        """Queues the labelled initial trials of a study; trials that an interrupted call has queued are not queued again.

        An unfinished trial that a repair could not label gets its label and its values back.
        """
        with self.claims.gate.passing():
            queued = self.study.get_trials(deepcopy=False)
            for trial, (label, values) in zip(queued, starts, strict=False):
                if trial.state == TrialState.WAITING and FIXED not in trial.system_attrs:
                    self._name(trial, label, values)
            for number, (label, values) in enumerate(starts):
                if number >= len(queued):  # None: another run, or an earlier attempt whose answer was lost, has queued it
                    self.writes.create(waiting_trial(label, values), number)

    def _name(self, trial: FrozenTrial, label: str, values: Mapping[str, Any]) -> None:
        self.study._storage.set_trial_user_attr(trial._trial_id, LABEL, label)
        self.study._storage.set_trial_system_attr(trial._trial_id, FIXED, dict(values))

    def take(self) -> Turn:
        """Returns the next trial of this worker, from ``Claims.take``, or a request to wait if no trials are queued yet."""
        total = self.total
        return self.patience(lambda: self.claims.take(total)) if total else Turn(Idle.WAIT)

    def propose(self, trial: FrozenTrial) -> FrozenTrial:
        """Stores the parameters of a proposed trial, by ``Writes.propose``."""
        return self.patience(lambda: self.writes.propose(trial))

    def tell(self, trial: FrozenTrial, recipe: Recipe, evaluation: Evaluation) -> TrialRecord:
        """Logs a finished trial, whose evaluation is in the cache, and reports it to Optuna.

        If another worker, which considered this one dead, was first, its result is kept.
        """
        key = self.key(recipe)
        self.log.add(entry_of(trial, key=key))
        record = TrialRecord(number=trial.number, label=label_of(trial), evaluation=evaluation)
        return self._end(trial, ending(trial, key, evaluation, sheet_links(self.store, recipe.hash)), record)

    def fail(self, trial: FrozenTrial, error: Exception) -> TrialRecord:
        """Records a failed trial with the reason."""
        reason = reason_of(error)
        self.log.add(entry_of(trial, error=reason))
        record = TrialRecord(number=trial.number, label=label_of(trial), state="FAIL", error=reason)
        return self._end(trial, Ending(None, {ERROR: reason}), record)

    def ended(self, trial: FrozenTrial) -> TrialRecord:
        """Records the result of a trial that another worker has ended."""
        found = self.patience(lambda: self.study._storage.get_trial(trial._trial_id))
        self.log.add(entry_of(found))
        return self._known.setdefault(trial.number, self._record(found))

    def give_back(self, trial: FrozenTrial) -> None:
        """Releases a trial, so that another worker or a later run can claim it."""
        with suppress(*OUTAGES, OSError):
            self.claims.give_back(trial)

    def _end(self, trial: FrozenTrial, told: Ending, record: TrialRecord) -> TrialRecord:
        if not self.patience(lambda: self.writes.end(trial, told)):
            return self.ended(trial)
        return self._known.setdefault(trial.number, record)

    @property
    def log(self) -> TrialLog:
        """Logs of all ended trials."""
        return TrialLog(self.store)

    def records(self, known: Sequence[FrozenTrial] | None = None) -> list[TrialRecord]:
        """Returns all finished trials, by number; pictures that better trials have displaced are removed first.

        Args:
            known: trials of the study, if they were just read; None reads them.
        """
        finished = [t for t in known or self.patience(lambda: counted(self.study.get_trials(deepcopy=False))) if t.state.is_finished()]
        for trial in finished:
            if trial.number not in self._known:
                self._known[trial.number] = self._record(trial)
        keys = {trial.number: trial.user_attrs.get(KEY, "") for trial in finished}
        for record in self.gallery.fallen({number: self._known[number] for number in keys}):
            self._known[record.number] = self._take_down(keys[record.number], record)
        return [self._known[trial.number] for trial in finished]

    def _take_down(self, key: str, record: TrialRecord) -> TrialRecord:
        """Removes a trial's pictures after its evaluation has ceased to list them; safe if other workers do so concurrently."""
        assert record.evaluation is not None
        bare = record.evaluation.model_copy(update={"images": ()})
        self.cache.put(key, bare)
        for file in record.evaluation.images:
            self.store.remove(file)
        return record.model_copy(update={"evaluation": bare})

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        label = label_of(trial)
        evaluation = self.cache.get(trial.user_attrs[KEY]) if trial.state == TrialState.COMPLETE else None
        if evaluation is None:
            reason = trial.user_attrs.get(ERROR, "its evaluation is missing or damaged — optimize repair has it evaluated again")
            return TrialRecord(number=trial.number, label=label, state="FAIL", error=reason)
        return TrialRecord(number=trial.number, label=label, evaluation=evaluation)

    def key(self, recipe: Recipe) -> str:
        """Returns the cache key of the recipe's evaluation in this study."""
        return evaluation_key(recipe=recipe.data(), **self.context)


def begin(study: optuna.Study, log: TrialLog, *, budget: int, inputs: Mapping[str, str], fork: str = "") -> None:
    """Records the study's budget and inputs, once; inputs that an older version did not record are added."""
    known = inputs_of(study)
    if inputs.keys() <= known.keys():
        return
    introduce(study)
    budget, inputs = budget_of(study, budget), {**inputs, **known}
    beginning = log.beginning
    log.begin(StudyEntry(budget=budget, inputs=inputs, fork=fork or (beginning.fork if beginning else "")))
    study.set_user_attr(BUDGET, budget)
    study.set_user_attr(INPUTS, inputs)


def budget_of(study: optuna.Study, asked: int) -> int:
    """Returns the budget that a study started with, or ``asked`` if it has not started."""
    return int(study.user_attrs.get(BUDGET, asked))


def inputs_of(study: optuna.Study) -> Mapping[str, str]:
    """Returns the digests and versions of the inputs that the study started with."""
    return dict(study.user_attrs.get(INPUTS, {}))


@contextmanager
def alone_in(directory: StudyDirectory) -> Iterator[None]:
    """Holds the lock that excludes all other runs from a study until the block, or the process, ends.

    Raises:
        StudyError: another run holds the lock.
    """
    lock = FileLock(directory.journal.with_name(f"{directory.journal.name}.run"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        remedy = "wait until it ends, or choose another --out"
        raise StudyError("another run is working on the study here", where=directory.path, remedy=remedy) from None
    try:
        yield
    finally:
        lock.release()


def reason_of(error: Exception) -> str:
    """Returns the reason of a failure in one line; exceptions that are not an OptimizerError are prefixed with their class name."""
    text = one_line(error)
    return text if isinstance(error, OptimizerError) else f"{type(error).__name__}: {text}".rstrip(": ")


def label_of(trial: BaseTrial) -> str:
    """Returns the label of a baseline or default recipe; empty for a proposed trial."""
    return str(trial.user_attrs.get(LABEL, ""))


def entry_of(trial: BaseTrial, *, key: str = "", error: str = "") -> TrialEntry:
    """Returns a trial as a log entry; key and error are taken from the trial's attributes if not given."""
    spaces = {name: distribution_to_json(space) for name, space in trial.distributions.items()}
    attributes = trial.user_attrs if not (key or error) else {KEY: key, ERROR: error}
    return TrialEntry(
        number=trial.number,
        label=label_of(trial),
        values=trial.params,
        spaces=spaces,
        key=attributes.get(KEY, ""),
        error=attributes.get(ERROR, ""),
        imported=trial.user_attrs.get(IMPORTED, False),
    )
