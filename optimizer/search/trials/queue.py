"""The queue of a study's initial trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from optimizer.search.labels import FIXED, LABEL
from optimizer.search.trials.frozen_trials import waiting_trial
from optimizer.search.trials.optuna_storage import id_of, storage_of
from optimizer.search.workers.claims import Claims
from optimizer.search.workers.trial_writer import TrialWriter


def enqueue(study: optuna.Study, claims: Claims, writer: TrialWriter, starts: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Queues the labelled initial trials of a study; trials that an interrupted call has queued are not queued again.

    An unfinished trial that a repair could not label gets its label and its values back.

    Args:
        study: Optuna study.
        claims: assignment of trials to workers, whose lock is held meanwhile.
        writer: writer of trials.
        starts: label and parameters of each trial, by number.
    """
    with claims.lock.held():
        queued = study.get_trials(deepcopy=False)
        for trial, (label, values) in zip(queued, starts, strict=False):
            if trial.state == TrialState.WAITING and FIXED not in trial.system_attrs:
                storage_of(study).set_trial_user_attr(id_of(trial), LABEL, label)
                storage_of(study).set_trial_system_attr(id_of(trial), FIXED, dict(values))
        for number, (label, values) in enumerate(starts):
            if number >= len(queued):  # nothing is created if another run, or an attempt whose answer was lost, has queued it
                writer.create(waiting_trial(label, values), number)
