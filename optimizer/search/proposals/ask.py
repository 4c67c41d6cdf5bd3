"""Proposing: a trial's values are a function of its number and of what was known when it was given out, and of nothing else."""

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
    """The trial with a value for every parameter of the space.

    Args:
        space: what may be proposed.
        trial: one that runs; if it was proposed before, and all of it was written down, that stays.
        known: the study's trials, whose results and proposals the sampler learns from.
        sampler: proposes what the trial was not queued with.
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
    """Whether the values are a whole proposal."""
    try:
        space.suggest(FixedTrial(dict(values)))
    except ValueError:
        return False
    return True


class _Known(InMemoryStorage):
    """A storage for one proposal: the trials are what they are, and what a sampler notes down for other workers goes nowhere.

    Optuna's Gaussian process would find such a note of an attempt that came to nothing, and take the trial for another's.
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
        """Optuna's trial keeps the value itself."""

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Nobody would read it."""
