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
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session


@dataclass(frozen=True)
class Ending:
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


class Writes(Protocol):
    """Writes data of running trials; all methods are idempotent and may be retried."""

    def propose(self, trial: FrozenTrial) -> FrozenTrial:
        """Stores the proposed parameters of a trial; returns the trial with the stored ones, which differ if another worker was first.

        Raises:
            UpdateFinishedTrialError: the trial has ended.
        """

    def end(self, trial: FrozenTrial, ending: Ending) -> bool:
        """Stores the result of a trial; returns False, without changes, if the trial has already ended."""


@dataclass(frozen=True)
class StorageWrites:
    """Sequential writes through Optuna's storage, for storages in which a live worker is never mistaken for dead.

    Attributes:
        study: Optuna study.
    """

    study: optuna.Study

    @property
    def _storage(self) -> BaseStorage:
        return self.study._storage

    def propose(self, trial: FrozenTrial) -> FrozenTrial:
        """Stores the proposed parameters one by one, and returns the trial."""
        for name, value in trial.params.items():
            space = trial.distributions[name]
            self._storage.set_trial_param(trial._trial_id, name, space.to_internal_repr(value), space)
        return trial

    def end(self, trial: FrozenTrial, ending: Ending) -> bool:
        """Stores the result of a trial; returns False, without changes, if the trial has already ended."""
        number, storage = trial._trial_id, self._storage
        if storage.get_trial(number).state.is_finished():
            return False
        for name, value in ending.user.items():
            storage.set_trial_user_attr(number, name, value)
        for name, value in ending.system.items():
            storage.set_trial_system_attr(number, name, value)
        for name, value in ending.study.items():
            storage.set_study_system_attr(self.study._study_id, name, value)
        storage.set_trial_state_values(number, ending.state, None if ending.value is None else [ending.value])
        return True


@dataclass(frozen=True)
class DatabaseWrites:
    """Writes in one PostgreSQL transaction each, in Optuna's tables, with the trial's row locked.

    Optuna's storage would use a transaction and several queries per value.

    Attributes:
        engine: engine with connections to the database.
        study: Optuna study.
    """

    engine: Engine
    study: optuna.Study

    def propose(self, trial: FrozenTrial) -> FrozenTrial:
        """Stores the proposed parameters of a trial in one transaction; returns the trial with the stored ones."""
        table = models.TrialParamModel
        with Session(self.engine) as session, session.begin():
            if _locked(session, trial).state.is_finished():
                raise UpdateFinishedTrialError(f"trial {trial.number} has ended")
            stored = session.scalars(select(table).where(table.trial_id == trial._trial_id)).all()
            if stored:
                return _with_params(trial, stored)
            session.execute(insert(table), [_param(trial, name) for name in trial.params])
        return trial

    def end(self, trial: FrozenTrial, ending: Ending) -> bool:
        """Stores the result of a trial in one transaction; returns False, without changes, if the trial has already ended."""
        number = {"trial_id": trial._trial_id}
        with Session(self.engine) as session, session.begin():
            row = _locked(session, trial)
            if row.state.is_finished():
                return False
            _set(session, models.TrialUserAttributeModel, number, ending.user)
            _set(session, models.TrialSystemAttributeModel, number, ending.system)
            _set(session, models.StudySystemAttributeModel, {"study_id": self.study._study_id}, ending.study)
            if ending.value is not None:
                kind = models.TrialValueModel.TrialValueType.FINITE
                session.execute(insert(models.TrialValueModel), number | {"objective": 0, "value": ending.value, "value_type": kind})
            row.state, row.datetime_complete = ending.state, datetime.now()
        return True


def _locked(session: Session, trial: FrozenTrial) -> models.TrialModel:
    """Returns the row of a trial, locked until the transaction ends."""
    return session.get_one(models.TrialModel, trial._trial_id, with_for_update=True)


def _param(trial: FrozenTrial, name: str) -> dict[str, Any]:
    space = trial.distributions[name]
    value = space.to_internal_repr(trial.params[name])
    return {"trial_id": trial._trial_id, "param_name": name, "param_value": value, "distribution_json": distribution_to_json(space)}


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
