"""Conversion between trial log entries and Optuna trials."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import BaseTrial, FrozenTrial, TrialState, create_trial

from optimizer.search.images.contact_sheets import sheet_links
from optimizer.search.labels import BUDGET, ERROR, FIXED, IMPORTED, INPUTS, KEY, LABEL
from optimizer.search.trials.optuna_notes import attributes, constraint_attributes
from studies.records import Evaluation
from studies.store import Store
from studies.trial_log import TrialEntry, TrialLog


def study_attributes(log: TrialLog) -> dict[str, Any]:
    """Returns the study attributes that the log records; empty if it has no study entry."""
    beginning = log.beginning
    return {} if beginning is None else {BUDGET: beginning.budget, INPUTS: dict(beginning.inputs)}


def finished_trial(entry: TrialEntry, evaluation: Evaluation | None, ended: datetime, store: Store) -> FrozenTrial:
    """Returns a finished Optuna trial: complete with this evaluation, or failed if it is None.

    Args:
        entry: entry of the trial in the trial log.
        evaluation: evaluation of the trial; None for a failed one.
        ended: end time of the trial.
        store: store of the contact sheets.

    Raises:
        ValueError: a value does not belong to the distribution of its parameter.
    """
    known: dict[str, Any] = {LABEL: entry.label, KEY: entry.key, ERROR: entry.error, IMPORTED: entry.imported}
    told = attributes(evaluation) if evaluation else {}
    trial = create_trial(
        state=TrialState.COMPLETE if evaluation else TrialState.FAIL,
        value=evaluation.score if evaluation else None,
        params=dict(entry.values),
        distributions={name: json_to_distribution(space) for name, space in entry.spaces.items()},
        user_attrs={name: value for name, value in known.items() if value} | told,
        system_attrs={**sheet_links(store, evaluation.recipe_hash), **constraint_attributes(evaluation)} if evaluation else {},
    )
    trial.datetime_start = trial.datetime_complete = ended
    return trial


def waiting_trial(label: str, values: Mapping[str, Any]) -> FrozenTrial:
    """Returns a queued trial with these values; if there are none, the sampler proposes all of them."""
    fixed = {FIXED: dict(values)} if values else {}
    return create_trial(state=TrialState.WAITING, user_attrs={LABEL: label} if label else {}, system_attrs=fixed)


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
