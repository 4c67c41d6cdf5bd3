"""Claims: which worker evaluates which trial, so that each is evaluated, by one, and never more than the budget allows."""

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
# So often a trial may take its worker with it; then it is the trial.
MOST_LOST = 10


class Idle(Enum):
    """Why there is nothing to claim: other workers still evaluate the last trials, or all have ended."""

    WAIT = "wait"
    DONE = "done"


@dataclass(frozen=True)
class Turn:
    """What a worker that asks for a trial is told.

    Attributes:
        trial: the one that is now its own, or why there is none.
        known: all trials of the study when it was given out; those that were given up before they began are left out.
    """

    trial: FrozenTrial | Idle
    known: Sequence[FrozenTrial] = ()


@dataclass(frozen=True)
class Claims:
    """Gives out the trials of one study.

    Attributes:
        study: the Optuna study.
        gate: keeps the other workers out meanwhile.
        roster: tells who of them is alive.
        worker: this worker's name.
    """

    study: optuna.Study
    gate: Gate
    roster: Roster
    worker: str

    def take(self, total: int) -> Turn:
        """A trial to evaluate: one that a dead worker has left, else the next of the queue, else a new one.

        It does no harm to call this again after an error: a trial that was given out before the answer was lost is found again.

        Args:
            total: trials that the study may have, baselines included.
        """
        with self.gate.passing():
            everything = self.study.get_trials(deepcopy=False)
            self._end_surplus(everything)
            known = _counted(everything)
            for orphan in self._orphans(known):
                with suppress(UpdateFinishedTrialError):  # its worker lives after all
                    return Turn(self._adopted(orphan), known)
            started = [t for t in known if t.state != TrialState.WAITING]
            if len(started) >= total:
                return Turn(Idle.WAIT if any(t.state == TrialState.RUNNING for t in started) else Idle.DONE, known)
            number = self._begun(known)
        trial = self._storage.get_trial(number)
        undisturbed = trial.number <= len(everything)
        return Turn(trial if undisturbed or self._within(trial, total) else self._given_up(trial), known)

    def give_back(self, trial: FrozenTrial) -> None:
        """Leave a trial unfinished, for the next that asks; it does not count as lost."""
        self._storage.set_trial_user_attr(trial._trial_id, _WORKER, None)

    @property
    def _storage(self) -> BaseStorage:
        return self.study._storage

    def _begun(self, known: Sequence[FrozenTrial]) -> int:
        """Begin the next trial of the queue, or a new one; returns Optuna's id of it."""
        for waiting in known:
            if waiting.state == TrialState.WAITING and self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                self._storage.set_trial_user_attr(waiting._trial_id, _WORKER, self.worker)
                return waiting._trial_id
        trial = create_trial(state=TrialState.RUNNING, user_attrs={_WORKER: self.worker})
        trial.datetime_start = datetime.now()
        return self._storage.create_new_trial(self.study._study_id, trial)

    def _orphans(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Trials that nobody works on any more, or this worker since before an answer was lost."""
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
        """Whether the trial is one of the budget's. It is, unless the database went away inside the gate and let two through."""
        before = [t for t in counted(self.study) if t.number < trial.number and t.state != TrialState.WAITING]
        return len(before) < total

    def _given_up(self, trial: FrozenTrial) -> Idle:
        self._storage.set_trial_user_attr(trial._trial_id, _SURPLUS, True)
        self._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return Idle.WAIT

    def _end_surplus(self, trials: Sequence[FrozenTrial]) -> None:
        """End trials whose worker, or the database, went away while they were given up."""
        for trial in trials:
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(_SURPLUS):
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def counted(study: optuna.Study) -> Sequence[FrozenTrial]:
    """The study's trials, without those that were given up before they began."""
    return _counted(study.get_trials(deepcopy=False))


def _counted(trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
    return [t for t in trials if not t.user_attrs.get(_SURPLUS)]


def times_lost(trial: FrozenTrial) -> int:
    """How many workers have died over a trial."""
    return int(trial.user_attrs.get(_LOST, 0))
