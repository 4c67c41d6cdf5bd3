"""The ledger: writes the results of trials to the store, the trial log and Optuna's storage, in an order that is safe against crashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from optimizer.errors import OptimizerError
from optimizer.merging import Recipe
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.evaluator import Measured
from optimizer.search.images.contact_sheets import sheet_links
from optimizer.search.labels import BUDGET, ERROR, EXHAUSTED, IMPORTED, KEY, SINCE, TOTAL
from optimizer.search.trials.beginning import inputs_of
from optimizer.search.trials.evaluations import StudyEvaluations
from optimizer.search.trials.frozen_trials import entry_of, finished_trial, label_of
from optimizer.search.trials.known_records import KnownRecords
from optimizer.search.trials.optuna_notes import result_of
from optimizer.search.trials.optuna_storage import id_of, storage_of
from optimizer.search.trials.queue import enqueue
from optimizer.search.workers.claims import Claim, Claims, Idle, counted
from optimizer.search.workers.heartbeat import Heartbeat
from optimizer.search.workers.retry import OUTAGES, RetryPolicy
from optimizer.search.workers.trial_writer import TrialResult, TrialWriter
from optimizer.text import one_line
from studies.records import Evaluation, TrialRecord
from studies.store import Store
from studies.trial_log import TrialEntry, TrialLog


class TrialEndedError(Exception):
    """Another worker, which considered this one dead, has ended the trial.

    Attributes:
        record: record of the ended trial.
    """

    def __init__(self, record: TrialRecord) -> None:
        super().__init__(f"trial {record.number} has ended")
        self.record = record


class Ledger:
    """The record of one study's trials: their evaluations and pictures, the trial log, and Optuna's study.

    An evaluation is durable before the trial is logged, and the log before Optuna learns of the result. Every call to Optuna is
    idempotent, and is retried here while a database is unavailable.

    Args:
        study: Optuna study.
        evaluations: evaluations and pictures of the study.
        claims: assignment of trials to workers.
        writer: writer of trials and their results.
        heartbeat: heartbeat of this worker.
        retry: retry policy for the storage.
        pictures: number of pictures of a trial.
    """

    def __init__(
        self,
        study: optuna.Study,
        evaluations: StudyEvaluations,
        claims: Claims,
        writer: TrialWriter,
        heartbeat: Heartbeat,
        retry: RetryPolicy,
        pictures: int,
    ) -> None:
        self._study, self._evaluations, self._log = study, evaluations, TrialLog(evaluations.store)
        self._claims, self._writer, self._heartbeat, self._retry = claims, writer, heartbeat, retry
        self._pictures = pictures
        self._records = KnownRecords(evaluations)

    @property
    def store(self) -> Store:
        """Store of the study's evaluations, pictures and routers."""
        return self._evaluations.store

    @property
    def planned_budget(self) -> int:
        """Budget that the study started with. Search space and initial trials depend on it, and do not change when the budget grows."""
        return int(self._attributes()[BUDGET])

    @property
    def inputs(self) -> Mapping[str, str]:
        """Digests and versions of the inputs that the study started with."""
        return self._retry(lambda: inputs_of(self._study))

    @property
    def total(self) -> int:
        """Present trial limit of the study, baselines included; 0 before its first trials are queued."""
        return int(self._attributes().get(TOTAL, 0))

    @property
    def imported(self) -> int:
        """Number of trials beyond the baselines that were imported from another study; they do not count towards the budget."""
        return sum(bool(t.user_attrs.get(IMPORTED)) for t in self._trials())

    @property
    def started(self) -> datetime:
        """Time at which the first trial began, with a time zone; now, if none has begun."""
        times = [t.datetime_start for t in self._trials() if t.datetime_start]
        return min(times, default=datetime.now()).astimezone(UTC)

    @property
    def finished(self) -> int:
        """Number of trials that this worker has evaluated."""
        return self._heartbeat.entry.finished

    def allow(self, total: int) -> None:
        """Sets the trial limit of the study."""
        self._retry(lambda: self._study.set_user_attr(TOTAL, total))

    @property
    def since(self) -> int:
        """Number of the first trial that counts for the patience of the search."""
        return int(self._attributes().get(SINCE, 0))

    def end_early(self, budget: int) -> None:
        """Ends a search that has a budget left, once the running trials have ended."""
        begun = [t for t in self._trials() if t.state != TrialState.WAITING]
        self._retry(lambda: self._study.set_user_attr(EXHAUSTED, [len(begun), budget]))
        self.allow(len(begun))

    def extend(self, total: int, budget: int) -> None:
        """Sets the trial limit; a study that was ended early and has a larger budget now gets patience again."""
        ended = self._attributes().get(EXHAUSTED)
        if ended and budget > ended[1]:
            self._retry(lambda: self._study.set_user_attr(SINCE, ended[0]))
        self.allow(total)

    def enqueue(self, starts: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Queues the labelled initial trials of a study; trials that an interrupted call has queued are not queued again.

        An unfinished trial that a repair could not label gets its label and its values back.
        """
        self._retry(lambda: enqueue(self._study, self._claims, self._writer, starts))

    def take(self) -> Claim:
        """Returns the next trial of this worker, from ``Claims.take``, or a request to wait if no trials are queued yet."""
        total = self.total
        claim = self._retry(lambda: self._claims.take(total)) if total else Claim(Idle.WAIT)
        if isinstance(claim.trial, FrozenTrial):
            self._heartbeat.set(state="working", trial=claim.trial.number)
        else:
            self._heartbeat.set(state="waiting", trial=None)
        return claim

    def propose(self, trial: FrozenTrial) -> FrozenTrial:
        """Stores the proposed parameters of a trial; returns it with the stored ones, which differ if another worker was first.

        Raises:
            TrialEndedError: another worker has ended the trial.
        """
        try:
            return self._retry(lambda: self._writer.propose(trial))
        except UpdateFinishedTrialError:
            raise TrialEndedError(self._counted(self._ended_by_another(trial))) from None

    def cached(self, recipe: Recipe, *, pruned: bool = False) -> Evaluation | None:
        """Returns the stored evaluation of a recipe, or that of the pruned one, by this or another worker or an earlier run, or None."""
        return self._evaluations.get(self._evaluations.key(recipe, pruned=pruned))

    def record(self, trial: FrozenTrial, recipe: Recipe, measured: Measured | Evaluation) -> TrialRecord:
        """Records a trial: first its pictures and its evaluation, which are durable then, then its log entry, then Optuna's trial.

        If another worker, which considered this one dead, was first, its evaluation and its result are kept.

        Args:
            trial: the trial, with the parameters of the recipe.
            recipe: recipe of the trial.
            measured: result of the trial, or what ``cached`` has returned.

        Returns:
            The record of the trial as it stands.

        Raises:
            OSError: the store cannot be written.
        """
        label = label_of(trial)
        evaluation = (
            measured if isinstance(measured, Evaluation) else self._evaluations.add(recipe, measured, label, self._records.by_number)
        )
        key = self._evaluations.key(recipe, pruned=evaluation.pruned)
        self._log.add(entry_of(trial, key=key))
        record = TrialRecord(number=trial.number, label=label, evaluation=evaluation)
        return self._end(trial, result_of(trial, key, evaluation, sheet_links(self._evaluations.store, recipe.hash)), record)

    def fail(self, trial: FrozenTrial, error: Exception) -> TrialRecord:
        """Records a failed trial with the reason, in the log first; returns its record as it stands."""
        reason = reason_of(error)
        self._log.add(entry_of(trial, error=reason))
        record = TrialRecord(number=trial.number, label=label_of(trial), state="FAIL", error=reason)
        return self._end(trial, TrialResult(None, {ERROR: reason}), record)

    def count_solving(self, seconds: float) -> None:
        """Counts time in which this worker solved a merge, which no later trial of the same method needs again."""
        self._heartbeat.add(solving=seconds)

    def give_back(self, trial: FrozenTrial) -> None:
        """Releases a trial, so that another worker or a later run can claim it."""
        with suppress(*OUTAGES, OSError):
            self._claims.give_back(trial)

    def records(self, known: Sequence[FrozenTrial] = ()) -> list[TrialRecord]:
        """Returns all finished trials, by number; pictures that better trials have displaced are removed first.

        Args:
            known: trials of the study, if they were just read.
        """
        return self._records.update([t for t in known or self._trials() if t.state.is_finished()])

    def save_baseline(self, name: str, images: Tensor) -> None:
        """Writes the pictures, uint8 (n, 3, height, width), of the base or of a source alone."""
        self._evaluations.save_baseline(name, images)

    def evaluated(self) -> list[str]:
        """Returns the evaluation key of every trial, by number; empty for one that has none yet."""
        return [str(t.user_attrs.get(KEY, "")) for t in self._all_trials()]

    def import_trial(self, entry: TrialEntry, evaluation: Evaluation, origin: Store) -> None:
        """Appends a finished trial of another study: its pictures and evaluation, then its log entry, then Optuna's trial.

        Args:
            entry: log entry of the trial; its number is the number of trials that the study has.
            evaluation: evaluation of the trial.
            origin: store of the other study, with the pictures.
        """
        copied = self._evaluations.copy(entry.key, evaluation, origin)
        self._log.add(entry)
        trial = finished_trial(entry, copied, datetime.now(), self._evaluations.store)
        self._retry(lambda: self._writer.create(trial, entry.number))

    def key(self, recipe: Recipe, aims: Aims | None = None) -> str:
        """Returns the cache key of the recipe's evaluation in this study, or in one with these aims and the same pictures."""
        return self._evaluations.key(recipe, aims)

    def _attributes(self) -> Mapping[str, Any]:
        attributes: Mapping[str, Any] = self._retry(lambda: self._study.user_attrs)
        return attributes

    def _all_trials(self) -> Sequence[FrozenTrial]:
        trials: Sequence[FrozenTrial] = self._retry(lambda: self._study.get_trials(deepcopy=False))
        return trials

    def _trials(self) -> Sequence[FrozenTrial]:
        return counted(self._all_trials())

    def _end(self, trial: FrozenTrial, result: TrialResult, record: TrialRecord) -> TrialRecord:
        if not self._retry(lambda: self._writer.end(trial, result)):
            return self._counted(self._ended_by_another(trial))
        return self._counted(self._records.keep(record))

    def _ended_by_another(self, trial: FrozenTrial) -> TrialRecord:
        """Logs the result of a trial that another worker has ended, and returns its record."""
        found = self._retry(lambda: storage_of(self._study).get_trial(id_of(trial)))
        self._log.add(entry_of(found))
        return self._records.of(found)

    def _counted(self, record: TrialRecord) -> TrialRecord:
        """Counts a trial in the heartbeat of this worker, and returns its record."""
        self._heartbeat.add(pictures=self._pictures, finished=1, failed=int(record.evaluation is None))
        return record


def reason_of(error: Exception) -> str:
    """Returns the reason of a failure in one line; exceptions that are not an OptimizerError are prefixed with their class name."""
    text = one_line(error)
    return text if isinstance(error, OptimizerError) else f"{type(error).__name__}: {text}".rstrip(": ")
