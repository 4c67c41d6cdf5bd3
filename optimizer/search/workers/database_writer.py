"""Writer of trials in a PostgreSQL database: every write is one transaction on Optuna's tables."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from optimizer.search.trials.optuna_storage import id_of, storage_of, study_id_of, tables, with_id
from optimizer.search.workers.trial_writer import TrialResult, assignment, is_unchanged


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
            if not is_unchanged(trial, state, attributes):
                return None
            if state == TrialState.WAITING:
                row.state, row.datetime_start = TrialState.RUNNING, datetime.now()
            _set(session, tables.TrialUserAttributeModel, owner, assignment(attributes, worker))
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
