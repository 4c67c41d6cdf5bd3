"""Claims: assignment of trials to workers, such that each trial is evaluated by one worker and the budget is not exceeded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from optimizer.search.workers.lock import Gate
from optimizer.search.workers.registry import Roster

_WORKER, _LOST, _SURPLUS = "worker", "lost", "surplus"
# Number of workers that may die during one trial before the trial itself counts as the cause.
MOST_LOST = 10


class Idle(Enum):
    """Reason for having no trial: other workers still evaluate the last trials, or all trials have ended."""

    WAIT = "wait"
    DONE = "done"


@dataclass(frozen=True)
class Turn:
    """Result of a worker's request for a trial.

    Attributes:
        trial: assigned trial, or the reason why there is none.
        known: all trials of the study at the time of assignment, without surplus trials that were cancelled before they began.
    """

    trial: FrozenTrial | Idle
    known: Sequence[FrozenTrial] = ()


@dataclass(frozen=True)
class Claims:
    """Assigns the trials of one study.

    Attributes:
        study: Optuna study.
        gate: lock that excludes other workers during an assignment.
        roster: registry of the workers that are alive.
        worker: name of this worker.
    """

    study: optuna.Study
    gate: Gate
    roster: Roster
    worker: str

    def take(self, total: int) -> Turn:
        """Returns a trial to evaluate: one that a dead worker has left, else the next queued trial, else a new one.

        The method may be called again after an error: a trial that was assigned before the response was lost is found again.

        Args:
            total: trial limit of the study, baselines included.
        """
        with self.gate.passing():
            everything = self.study.get_trials(deepcopy=False)
            self._end_surplus(everything)
            known = _counted(everything)
            for orphan in self._orphans(known):
                with suppress(UpdateFinishedTrialError):  # the trial's worker is alive after all and has finished it
                    return Turn(self._adopted(orphan), known)
            started = [t for t in known if t.state != TrialState.WAITING]
            if len(started) >= total:
                return Turn(Idle.WAIT if any(t.state == TrialState.RUNNING for t in started) else Idle.DONE, known)
            number = self._begun(known)
        trial = self._storage.get_trial(number)
        undisturbed = trial.number <= len(everything)
        return Turn(trial if undisturbed or self._within(trial, total) else self._given_up(trial), known)

    def give_back(self, trial: FrozenTrial) -> None:
        """Releases a trial unfinished, so that another worker can claim it; it does not count as lost."""
        self._storage.set_trial_user_attr(trial._trial_id, _WORKER, None)

    @property
    def _storage(self) -> BaseStorage:
        return self.study._storage

    def _begun(self, known: Sequence[FrozenTrial]) -> int:
        """Starts the next queued trial, or a new one, and returns Optuna's trial id."""
        for waiting in known:
            if waiting.state == TrialState.WAITING and self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                self._storage.set_trial_user_attr(waiting._trial_id, _WORKER, self.worker)
                return waiting._trial_id
        trial = create_trial(state=TrialState.RUNNING, user_attrs={_WORKER: self.worker})
        trial.datetime_start = datetime.now()
        return self._storage.create_new_trial(self.study._study_id, trial)

    def _orphans(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Returns running trials of dead workers, released trials, and trials assigned to this worker whose response was lost."""
        running = [(t, t.user_attrs.get(_WORKER)) for t in trials if t.state == TrialState.RUNNING]
        nobody = self.roster.dead({owner for _, owner in running if owner}) | {None, self.worker}
        return [trial for trial, owner in running if owner in nobody]

    def _adopted(self, orphan: FrozenTrial) -> FrozenTrial:
        owner, number = orphan.user_attrs.get(_WORKER), orphan._trial_id
        if owner != self.worker:
            if owner is not None:
                self._storage.set_trial_user_attr(number, _LOST, times_lost(orphan) + 1)
            self._storage.set_trial_user_attr(number, _WORKER, self.worker)
        return self._storage.get_trial(number)

    def _within(self, trial: FrozenTrial, total: int) -> bool:
        """Returns whether the trial is within the budget; it exceeds it only if the lock was lost with the database connection."""
        before = [t for t in counted(self.study) if t.number < trial.number and t.state != TrialState.WAITING]
        return len(before) < total

    def _given_up(self, trial: FrozenTrial) -> Idle:
        self._storage.set_trial_user_attr(trial._trial_id, _SURPLUS, True)
        self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return Idle.WAIT

    def _end_surplus(self, trials: Sequence[FrozenTrial]) -> None:
        """Finishes cancelling surplus trials whose cancellation was interrupted."""
        for trial in trials:
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(_SURPLUS):
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def counted(study: optuna.Study) -> Sequence[FrozenTrial]:
    """Returns the study's trials, without surplus trials that were cancelled before they began."""
    return _counted(study.get_trials(deepcopy=False))


def _counted(trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
    return [t for t in trials if not t.user_attrs.get(_SURPLUS)]


def times_lost(trial: FrozenTrial) -> int:
    """Returns the number of workers that have died during a trial."""
    return int(trial.user_attrs.get(_LOST, 0))
