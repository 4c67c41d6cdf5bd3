"""Claims: assignment of trials to workers, such that each trial is evaluated by one worker and the budget is not exceeded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from optimizer.search.trials.optuna_storage import id_of, storage_of
from optimizer.search.workers.lock import StudyLock
from optimizer.search.workers.registry import WorkerRegistry
from optimizer.search.workers.trial_writer import LOST, WORKER, TrialWriter

_SURPLUS = "surplus"
# Number of workers that may die during one trial before the trial itself counts as the cause.
MOST_LOST = 10


class Idle(Enum):
    """Reason for having no trial: other workers still evaluate the last trials, or all trials have ended."""

    WAIT = "wait"
    DONE = "done"


@dataclass(frozen=True)
class Claim:
    """Result of a worker's request for a trial.

    Attributes:
        trial: assigned trial, or the reason why there is none.
        known: all trials of the study at the time of assignment, as ``counted`` returns them.
    """

    trial: FrozenTrial | Idle
    known: Sequence[FrozenTrial] = ()


@dataclass(frozen=True)
class Claims:
    """Assigns the trials of one study.

    A database's lock only spares the workers from competing, because it may be lost with its connection at any moment: every change is
    made on the condition that the trials are still those that the decision was based on. A file lock is held until it is released.

    Attributes:
        study: Optuna study.
        lock: lock that excludes other workers during an assignment.
        registry: registry of the workers that are alive.
        writer: writer of the assignments.
        worker: name of this worker; no other worker, past or present, has the same.
    """

    study: optuna.Study
    lock: StudyLock
    registry: WorkerRegistry
    writer: TrialWriter
    worker: str

    def take(self, total: int) -> Claim:
        """Returns a trial to evaluate: one that a dead worker has left, else the next queued trial, else a new one.

        The method may be called again after an error: a trial that was assigned before the response was lost is found again by the name
        of its worker.

        Args:
            total: trial limit of the study, baselines included.
        """
        with self.lock.held():
            while True:
                everything = self.study.get_trials(deepcopy=False)
                known = counted(everything)
                for trial in (*self._orphans(known), *(t for t in known if t.state == TrialState.WAITING)):
                    if claimed := self.writer.claim(trial, self.worker):
                        return Claim(claimed, known)
                started = [t for t in known if t.state != TrialState.WAITING]
                if len(started) >= total:
                    return Claim(Idle.WAIT if any(t.state == TrialState.RUNNING for t in started) else Idle.DONE, known)
                if created := self.writer.create(_begun_by(self.worker), len(everything)):
                    return Claim(created, known)

    def give_back(self, trial: FrozenTrial) -> None:
        """Releases a trial unfinished, so that another worker can claim it; it does not count as lost."""
        storage_of(self.study).set_trial_user_attr(id_of(trial), WORKER, None)

    def _orphans(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Returns trials assigned to this worker whose response was lost, then released trials and running trials of dead workers."""
        running = [(t, t.user_attrs.get(WORKER)) for t in trials if t.state == TrialState.RUNNING]
        nobody = self.registry.dead({owner for _, owner in running if owner}) | {None}
        own = [trial for trial, owner in running if owner == self.worker]
        return [*own, *(trial for trial, owner in running if owner in nobody and owner != self.worker)]


def _begun_by(worker: str) -> FrozenTrial:
    trial = create_trial(state=TrialState.RUNNING, user_attrs={WORKER: worker})
    trial.datetime_start = datetime.now()
    return trial


def counted(trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
    """Returns the trials without those beyond the budget, which earlier versions created and cancelled before they began."""
    return [t for t in trials if not t.user_attrs.get(_SURPLUS)]


def times_lost(trial: FrozenTrial) -> int:
    """Returns the number of workers that have died during a trial."""
    return int(trial.user_attrs.get(LOST, 0))
