"""Proposing a trial: its values depend only on its number and on the trials known when it was assigned, so that runs are reproducible."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from optimizer.search.labels import FIXED
from optimizer.search.proposals.space import SearchSpace


def proposed(space: SearchSpace, trial: FrozenTrial, known: Sequence[FrozenTrial], sampler: BaseSampler) -> FrozenTrial:
    """Returns the trial with a value for every parameter of the space.

    Args:
        space: search space of the study.
        trial: running trial; an earlier complete proposal is kept.
        known: trials of the study that the sampler learns from, with results and proposals.
        sampler: sampler for the values that were not queued with the trial.
    """
    if is_whole(space, trial.params):
        return trial
    blank = copy.copy(trial)
    blank.params, blank.distributions = {}, {}
    blank.system_attrs = {name: value for name, value in trial.system_attrs.items() if name == FIXED}
    others = [t for t in known if t.number != trial.number]
    study = optuna.create_study(storage=_Known(blank, others), sampler=sampler, direction="maximize")
    space.suggest(asked := optuna.Trial(study, trial._trial_id))
    found = copy.copy(trial)
    found.params, found.distributions = asked.params, asked.distributions
    return found


def is_whole(space: SearchSpace, values: Mapping[str, Any]) -> bool:
    """Returns whether the values are a complete proposal."""
    try:
        space.suggest(FixedTrial(dict(values)))
    except ValueError:
        return False
    return True


class _Known(InMemoryStorage):
    """In-memory storage for one proposal, with fixed trials; attributes that a sampler stores for other workers are discarded.

    Optuna's Gaussian process sampler would find such an attribute of a failed attempt, and treat the trial as another worker's.
    """

    def __init__(self, trial: FrozenTrial, others: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._trial, self._others = trial, others

    def get_trial(self, trial_id: int) -> FrozenTrial:
        assert trial_id == self._trial._trial_id
        return copy.copy(self._trial)

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        found = [t for t in self._others if states is None or t.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def set_trial_param(self, trial_id: int, *_: Any) -> None:
        """Discards the value, because Optuna's trial object keeps it itself."""

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Discards the attribute, because it is never read."""
