"""Claims: which worker evaluates which trial, so that each is evaluated, by one, and never more than the budget allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from optimizer.search.workers.gate import Gate
from optimizer.search.workers.roster import Roster

_WORKER, _LOST, _SURPLUS = "worker", "lost", "surplus"
# So often a trial may take its worker with it; then it is the trial.
MOST_LOST = 10


class Idle(Enum):
    """Why there is nothing to claim: other workers still evaluate the last trials, or all have ended."""

    WAIT = "wait"
    DONE = "done"


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

    def take(self, total: int, sampler: Callable[[int], BaseSampler]) -> optuna.Trial | Idle:
        """A trial to evaluate: one that a dead worker has left, else the next one.

        It does no harm to call this again after an error: a trial that was given out before the answer was lost is found again.

        Args:
            total: trials that the study may have, baselines included.
            sampler: the sampler that proposes the trial of a number.
        """
        with self.gate.passing():
            everything = self.study.get_trials(deepcopy=False)
            self._end_surplus(everything)
            trials = _counted(everything)
            for orphan in self._orphans(trials):
                with suppress(UpdateFinishedTrialError):  # its worker lives after all
                    return self._adopt(orphan, sampler)
            started = [t for t in trials if t.state != TrialState.WAITING]
            if len(started) >= total:
                return Idle.WAIT if any(t.state == TrialState.RUNNING for t in started) else Idle.DONE
            self.study.sampler = sampler(min((t.number for t in trials if t.state == TrialState.WAITING), default=len(started)))
            trial = self.study.ask()
            trial.set_user_attr(_WORKER, self.worker)
        undisturbed = trial.number <= len(everything)
        return trial if undisturbed or self._within(trial, total) else self._given_up(trial)

    def give_back(self, trial: optuna.Trial) -> None:
        """Leave a trial unfinished, for the next that asks; it does not count as lost."""
        trial.set_user_attr(_WORKER, None)

    def _orphans(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Trials that nobody works on any more, or this worker since before an answer was lost."""
        running = [(t, t.user_attrs.get(_WORKER)) for t in trials if t.state == TrialState.RUNNING]
        nobody = self.roster.dead({owner for _, owner in running if owner}) | {None, self.worker}
        return [trial for trial, owner in running if owner in nobody]

    def _adopt(self, orphan: FrozenTrial, sampler: Callable[[int], BaseSampler]) -> optuna.Trial:
        self.study.sampler = sampler(orphan.number)
        trial = optuna.Trial(self.study, orphan._trial_id)  # Optuna has no public way to take up a running trial
        owner = orphan.user_attrs.get(_WORKER)
        if owner != self.worker:
            if owner is not None:
                trial.set_user_attr(_LOST, orphan.user_attrs.get(_LOST, 0) + 1)
            trial.set_user_attr(_WORKER, self.worker)
        return trial

    def _within(self, trial: optuna.Trial, total: int) -> bool:
        """Whether the trial is one of the budget's. It is, unless the database went away inside the gate and let two through."""
        before = [t for t in counted(self.study) if t.number < trial.number and t.state != TrialState.WAITING]
        return len(before) < total

    def _given_up(self, trial: optuna.Trial) -> Idle:
        trial.set_user_attr(_SURPLUS, True)
        self.study.tell(trial, state=TrialState.FAIL)
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


def times_lost(trial: optuna.Trial) -> int:
    """How many workers have died over a trial."""
    return int(trial.user_attrs.get(_LOST, 0))
