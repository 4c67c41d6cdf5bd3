"""Atomic writes of trial data, so that neither a crash nor a concurrent worker leaves a partial record."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from optimizer.search.trials.optuna_storage import id_of, storage_of, study_id_of, tables, with_id

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
        if not _unchanged(trial, found.state, found.user_attrs):
            return None
        if found.state == TrialState.WAITING:
            storage.set_trial_state_values(number, TrialState.RUNNING)
        for name, value in _assignment(found.user_attrs, worker).items():
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


@dataclass(frozen=True)
class DatabaseTrialWriter:
    """Writes in one PostgreSQL transaction each, in Optuna's tables, with the trial's row locked.

    Optuna's storage would use a transaction and several queries per value.

    Attributes:
        engine: engine with connections to the database.
        study: Optuna study.
    """

    engine: Engine
    study: optuna.Study

    def create(self, trial: FrozenTrial, number: int) -> FrozenTrial | None:
        """Appends a trial in one transaction, unless the study does not have exactly ``number`` trials.

        The row of the study is locked meanwhile, as Optuna does when it creates a trial.
        """
        study = study_id_of(self.study)
        with Session(self.engine) as session, session.begin():
            session.get_one(tables.StudyModel, study, with_for_update=True)
            rows = tables.TrialModel.study_id == study
            if session.scalar(select(func.count()).select_from(tables.TrialModel).where(rows)) != number:
                return None
            row = tables.TrialModel(study_id=study, number=number, state=trial.state)
            row.datetime_start, row.datetime_complete = trial.datetime_start, trial.datetime_complete
            session.add(row)
            session.flush()
            owner: dict[str, int] = {"trial_id": int(row.trial_id)}
            _set(session, tables.TrialUserAttributeModel, owner, trial.user_attrs)
            _set(session, tables.TrialSystemAttributeModel, owner, trial.system_attrs)
            if trial.params:
                session.execute(insert(tables.TrialParamModel), [owner | _param(trial, name) for name in trial.params])
            if trial.value is not None:
                _set_value(session, owner, trial.value)
        return with_id(trial, number, owner["trial_id"])

    def claim(self, trial: FrozenTrial, worker: str) -> FrozenTrial | None:
        """Assigns a queued or running trial to a worker in one transaction."""
        owner = {"trial_id": id_of(trial)}
        with Session(self.engine) as session, session.begin():
            row = _locked(session, trial)
            state: Any = row.state
            attributes = {attribute.key: json.loads(attribute.value_json) for attribute in row.user_attributes}
            if not _unchanged(trial, state, attributes):
                return None
            if state == TrialState.WAITING:
                row.state, row.datetime_start = TrialState.RUNNING, datetime.now()
            _set(session, tables.TrialUserAttributeModel, owner, _assignment(attributes, worker))
        return storage_of(self.study).get_trial(id_of(trial))

    def propose(self, trial: FrozenTrial) -> FrozenTrial:
        """Stores the proposed parameters of a trial in one transaction; returns the trial with the stored ones."""
        table = tables.TrialParamModel
        with Session(self.engine) as session, session.begin():
            if _locked(session, trial).state.is_finished():
                raise UpdateFinishedTrialError(f"trial {trial.number} has ended")
            stored = session.scalars(select(table).where(table.trial_id == id_of(trial))).all()
            if stored:
                return _with_params(trial, stored)
            session.execute(insert(table), [{"trial_id": id_of(trial)} | _param(trial, name) for name in trial.params])
        return trial

    def end(self, trial: FrozenTrial, ending: TrialResult) -> bool:
        """Stores the result of a trial in one transaction; returns False, without changes, if the trial has already ended."""
        number = {"trial_id": id_of(trial)}
        with Session(self.engine) as session, session.begin():
            row = _locked(session, trial)
            if row.state.is_finished():
                return False
            _set(session, tables.TrialUserAttributeModel, number, ending.user)
            _set(session, tables.TrialSystemAttributeModel, number, ending.system)
            _set(session, tables.StudySystemAttributeModel, {"study_id": study_id_of(self.study)}, ending.study)
            if ending.value is not None:
                _set_value(session, number, ending.value)
            row.state, row.datetime_complete = ending.state, datetime.now()
        return True


def _unchanged(seen: FrozenTrial, state: TrialState, attributes: Mapping[str, Any]) -> bool:
    """Returns whether a trial is unfinished, and still in the state and with the worker that it was seen with."""
    return not state.is_finished() and state == seen.state and attributes.get(WORKER) == seen.user_attrs.get(WORKER)


def _assignment(attributes: Mapping[str, Any], worker: str) -> Mapping[str, str | int]:
    """Returns the attributes that assign a trial to a worker; another worker that it was assigned to is counted as lost."""
    before = attributes.get(WORKER)
    lost = {} if before in (None, worker) else {LOST: int(attributes.get(LOST, 0)) + 1}
    return lost | {WORKER: worker}


def _locked(session: Session, trial: FrozenTrial) -> tables.TrialModel:
    """Returns the row of a trial, locked until the transaction ends."""
    return session.get_one(tables.TrialModel, id_of(trial), with_for_update=True)


def _param(trial: FrozenTrial, name: str) -> dict[str, Any]:
    space = trial.distributions[name]
    value = space.to_internal_repr(trial.params[name])
    return {"param_name": name, "param_value": value, "distribution_json": distribution_to_json(space)}


def _set_value(session: Session, owner: Mapping[str, int], value: float) -> None:
    kind = tables.TrialValueModel.TrialValueType.FINITE
    session.execute(insert(tables.TrialValueModel), {**owner, "objective": 0, "value": value, "value_type": kind})


def _with_params(trial: FrozenTrial, stored: Any) -> FrozenTrial:
    found = copy.copy(trial)
    found.distributions = {row.param_name: json_to_distribution(row.distribution_json) for row in stored}
    found.params = {row.param_name: found.distributions[row.param_name].to_external_repr(row.param_value) for row in stored}
    return found


def _set(session: Session, table: Any, owner: Mapping[str, int], values: Mapping[str, Any]) -> None:
    """Inserts or updates attributes."""
    if values:
        statement = insert(table).values([{**owner, "key": name, "value_json": json.dumps(value)} for name, value in values.items()])
        replaced = {"value_json": statement.excluded.value_json}
        session.execute(statement.on_conflict_do_update(index_elements=[*owner, "key"], set_=replaced))
