"""Atomic writes of trial data, so that neither a crash nor a concurrent worker leaves a partial record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from optimizer.search.trials.optuna_storage import id_of, storage_of, study_id_of

WORKER, LOST = "worker", "lost"
"""Trial attributes: name of the worker that a trial is assigned to, and number of workers that have died during the trial."""


@dataclass(frozen=True)
class TrialResult:
    """Final result of a trial.

    Attributes:
        value: score of the trial; None for a failed trial.
        user: user attributes of the trial.
        system: system attributes of the trial.
        study: system attributes of the study.
    """

    value: float | None
    user: Mapping[str, Any] = field(default_factory=dict)
    system: Mapping[str, Any] = field(default_factory=dict)
    study: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> TrialState:
        """Final state of the trial."""
        return TrialState.FAIL if self.value is None else TrialState.COMPLETE


class TrialWriter(Protocol):
    """Writes data of trials; every method may be retried when its answer was lost."""

    def create(self, trial: FrozenTrial, number: int) -> FrozenTrial | None:
        """Appends a trial, and returns it as stored; its number makes the call safe to repeat.

        Args:
            trial: state, times, attributes, parameters and value of the new trial.
            number: number that the trial must get.

        Returns:
            The new trial; None, without changes, if the study does not have exactly ``number`` trials: another worker was first, or an
            earlier attempt, whose answer was lost, has created the trial.
        """

    def claim(self, trial: FrozenTrial, worker: str) -> FrozenTrial | None:
        """Assigns a queued or running trial to a worker, and returns it as stored.

        If it was assigned to another worker, that one counts as lost.

        Args:
            trial: the trial, as it was read before the decision to claim it.
            worker: name of the worker.

        Returns:
            The trial; None, without changes, if it has ended or was assigned to another worker since it was read.
        """

    def propose(self, trial: FrozenTrial) -> FrozenTrial:
        """Stores the proposed parameters of a trial; returns the trial with the stored ones, which differ if another worker was first.

        Raises:
            UpdateFinishedTrialError: the trial has ended.
        """

    def end(self, trial: FrozenTrial, ending: TrialResult) -> bool:
        """Stores the result of a trial; returns False, without changes, if the trial has already ended."""


@dataclass(frozen=True)
class StorageTrialWriter:
    """Sequential writes through Optuna's storage, for storages in which a live worker is never mistaken for dead.

    Attributes:
        study: Optuna study.
    """

    study: optuna.Study

    @property
    def _storage(self) -> BaseStorage:
        return storage_of(self.study)

    def create(self, trial: FrozenTrial, number: int) -> FrozenTrial | None:
        """Appends a trial, unless the study does not have exactly ``number`` trials; other workers are excluded by the caller's lock."""
        if len(self.study.get_trials(deepcopy=False)) != number:
            return None
        return self._storage.get_trial(self._storage.create_new_trial(study_id_of(self.study), trial))

    def claim(self, trial: FrozenTrial, worker: str) -> FrozenTrial | None:
        """Assigns a queued or running trial to a worker; other workers are excluded by the caller's lock."""
        number, storage = id_of(trial), self._storage
        found = storage.get_trial(number)
        if not is_unchanged(trial, found.state, found.user_attrs):
            return None
        if found.state == TrialState.WAITING:
            storage.set_trial_state_values(number, TrialState.RUNNING)
        for name, value in assignment(found.user_attrs, worker).items():
            storage.set_trial_user_attr(number, name, value)
        return storage.get_trial(number)

    def propose(self, trial: FrozenTrial) -> FrozenTrial:
        """Stores the proposed parameters one by one, and returns the trial."""
        for name, value in trial.params.items():
            space = trial.distributions[name]
            self._storage.set_trial_param(id_of(trial), name, space.to_internal_repr(value), space)
        return trial

    def end(self, trial: FrozenTrial, ending: TrialResult) -> bool:
        """Stores the result of a trial; returns False, without changes, if the trial has already ended."""
        number, storage = id_of(trial), self._storage
        if storage.get_trial(number).state.is_finished():
            return False
        for name, value in ending.user.items():
            storage.set_trial_user_attr(number, name, value)
        for name, value in ending.system.items():
            storage.set_trial_system_attr(number, name, value)
        for name, value in ending.study.items():
            storage.set_study_system_attr(study_id_of(self.study), name, value)
        storage.set_trial_state_values(number, ending.state, None if ending.value is None else [ending.value])
        return True


def is_unchanged(seen: FrozenTrial, state: TrialState, attributes: Mapping[str, Any]) -> bool:
    """Returns whether a trial is unfinished, and still in the state and with the worker that it was seen with."""
    return not state.is_finished() and state == seen.state and attributes.get(WORKER) == seen.user_attrs.get(WORKER)


def assignment(attributes: Mapping[str, Any], worker: str) -> Mapping[str, str | int]:
    """Returns the attributes that assign a trial to a worker; another worker that it was assigned to is counted as lost."""
    before = attributes.get(WORKER)
    lost = {} if before in (None, worker) else {LOST: int(attributes.get(LOST, 0)) + 1}
    return lost | {WORKER: worker}
