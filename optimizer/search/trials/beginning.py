"""The beginning of a study: the budget and the inputs that it is recorded with, once."""

from __future__ import annotations

from collections.abc import Mapping

import optuna

from optimizer.search.evaluation.aims import PRIORITIES
from optimizer.search.labels import BUDGET, INPUTS
from optimizer.search.trials.optuna_notes import introduce
from studies.trial_log import StudyEntry, TrialLog


def begin(study: optuna.Study, log: TrialLog, *, budget: int, inputs: Mapping[str, str], fork: str = "") -> None:
    """Records the study's budget and inputs, once; inputs that an older version did not record are added."""
    known = inputs_of(study)
    if inputs.keys() <= known.keys():
        return
    introduce(study, inputs.get(PRIORITIES, ""))
    budget, inputs = budget_of(study, budget), {**inputs, **known}
    beginning = log.beginning
    log.begin(StudyEntry(budget=budget, inputs=inputs, fork=fork or (beginning.fork if beginning else "")))
    study.set_user_attr(BUDGET, budget)
    study.set_user_attr(INPUTS, inputs)


def budget_of(study: optuna.Study, asked: int) -> int:
    """Returns the budget that a study started with, or ``asked`` if it has not started."""
    return int(study.user_attrs.get(BUDGET, asked))


def inputs_of(study: optuna.Study) -> Mapping[str, str]:
    """Returns the digests and versions of the inputs that the study started with."""
    return dict(study.user_attrs.get(INPUTS, {}))
