"""Proposing a trial: its values depend only on its number and on the trials known when it was assigned, so that runs are reproducible."""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from optimizer.merging import Recipe
from optimizer.search.labels import FIXED
from optimizer.search.proposals.neighbours import unknown_neighbour
from optimizer.search.proposals.space import NOTHING, SearchSpace
from optimizer.search.trials.ledger import Ledger
from optimizer.search.trials.optuna_notes import CONSTRAINT
from optimizer.search.trials.optuna_storage import id_of

Axes = Mapping[int, Sequence[float]]
"""Values of the complete trials, by number, on the axes of a Pareto front; all are to be maximized."""


def ask(
    ledger: Ledger, space: SearchSpace, trial: FrozenTrial, known: Sequence[FrozenTrial], sampler: BaseSampler, axes: Axes | None = None
) -> tuple[FrozenTrial, Recipe]:
    """Returns a trial with its parameters, which are stored then, and its recipe.

    If another worker has stored other parameters for the trial first, those are returned. Arguments as of ``propose``.

    Raises:
        TrialEndedError: another worker has ended the trial.
    """
    proposal, recipe = propose(space, trial, known, sampler, axes)
    stored = ledger.propose(proposal)
    return stored, recipe if stored.params == proposal.params else space.recipe(stored.params)


def propose(
    space: SearchSpace, trial: FrozenTrial, known: Sequence[FrozenTrial], sampler: BaseSampler, axes: Axes | None = None
) -> tuple[FrozenTrial, Recipe]:
    """Returns the trial with a value for every parameter of the space, and the recipe of these values.

    A merge that another trial has had is replaced by the nearest one on the grid that none has had.

    Args:
        space: search space of the study.
        trial: running trial; an earlier complete proposal is kept.
        known: trials of the study that the sampler learns from, with results and proposals.
        sampler: sampler for the values that were not queued with the trial.
        axes: values of the complete trials in a search for a Pareto front; None for a search for the best score.
    """
    given = trial.system_attrs.get(FIXED, {})
    if recipe := complete_recipe(space, trial.params, given):
        return trial, recipe
    blank = copy.copy(trial)
    blank.params, blank.distributions = {}, {}
    blank.system_attrs = {name: value for name, value in trial.system_attrs.items() if name == FIXED}
    others = [seen for t in known if t.number != trial.number and (seen := space.seen(t))]
    others = others if axes is None else _on_axes(others, axes)
    directions = [StudyDirection.MAXIMIZE] * (len(next(iter(axes.values()))) if axes else 1)
    study = optuna.create_study(storage=_Known(blank, others), sampler=sampler, directions=directions)
    recipe = space.suggest(asked := optuna.Trial(study, id_of(trial)), given)
    found = copy.copy(trial)
    found.params, found.distributions = asked.params, asked.distributions
    known_hashes = {earlier.hash for t in others if (earlier := complete_recipe(space, t.params, t.params))}
    if recipe.hash in known_hashes and (moved := unknown_neighbour(space, found.params, found.distributions, known_hashes, given)):
        found.params, recipe = moved, space.recipe(moved)
    return found, recipe


def complete_recipe(space: SearchSpace, values: Mapping[str, Any], given: Mapping[str, Any] = NOTHING) -> Recipe | None:
    """Returns the recipe of a complete proposal; None if a value is missing or not one of the space.

    Args:
        space: search space of the study.
        values: values of the proposal.
        given: values that were queued with the trial, as in ``SearchSpace.suggest``.
    """
    try:
        return space.suggest(FixedTrial(dict(values)), given)
    except ValueError:
        return None


def _on_axes(trials: Sequence[FrozenTrial], axes: Axes) -> list[FrozenTrial]:
    """Returns the trials with their values on the axes in place of the score; complete trials whose values are not known are left out."""
    found: list[FrozenTrial] = []
    for trial in trials:
        if trial.state != TrialState.COMPLETE:
            found.append(trial)
        elif trial.number in axes:
            found.append(copy.copy(trial))
            found[-1].values = list(axes[trial.number])
    return found


class _Known(InMemoryStorage):
    """In-memory storage for one proposal, with fixed trials; attributes that a sampler stores for other workers are discarded.

    Optuna's Gaussian process sampler would find such an attribute of a failed attempt, and treat the trial as another worker's.
    """

    def __init__(self, trial: FrozenTrial, others: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._trial, self._others = trial, [_with_ordered_constraints(t) for t in others]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        assert trial_id == id_of(self._trial)
        return copy.copy(self._trial)

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        found = [t for t in self._others if states is None or t.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def set_trial_param(self, trial_id: int, *_: Any) -> None:
        """Discards the value, because Optuna's trial object keeps it itself."""

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Discards the attribute, because it is never read."""


def _with_ordered_constraints(trial: FrozenTrial) -> FrozenTrial:
    """Returns a trial with its constraints ordered by name, because samplers match those of different trials by position."""
    if len(names := sorted(trial.constraints)) < 2:
        return trial
    found = copy.copy(trial)
    others = {name: value for name, value in trial.system_attrs.items() if not name.startswith(CONSTRAINT)}
    found.system_attrs = others | {f"{CONSTRAINT}{name}": trial.constraints[name] for name in names}
    return found
