"""A proposal is what Optuna itself would propose, follows from what was known alone, and is made once."""

from __future__ import annotations

import copy
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from optimizer.search.proposals.ask import complete_recipe, propose
from optimizer.search.proposals.sampler import sampler_for
from optimizer.search.proposals.space import SearchSpace

SPACE = SearchSpace(
    names=("a", "b"),
    hashes=("0" * 64, "1" * 64),
    methods=("linear", "ties"),
    groups=((), ("IN",)),
    blocks={"IN": ("IN",)},
    rank=None,
    sum_of_ranks=8,
    dtype="fp16",
    seed=0,
)


def gaussian(seed: int = 3) -> BaseSampler:
    return sampler_for(8, seed=seed, dimensions=4, startup=4, kind="gp")


def parzen(seed: int = 3) -> BaseSampler:
    return sampler_for(8, seed=seed, dimensions=4, startup=4, kind="tpe")


def random(seed: int = 3) -> BaseSampler:
    return sampler_for(8, seed=seed, dimensions=4, startup=100)


def study_of(sampler: BaseSampler, ended: int = 8) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    for number in range(ended):
        trial = study.ask()
        SPACE.suggest(trial)
        study.tell(trial, (number * 0.37) % 1)
    study.sampler = sampler
    return study


def blank(number: int, **attributes: Any) -> FrozenTrial:
    trial = create_trial(state=TrialState.RUNNING, **attributes)
    trial.number, trial._trial_id = number, number
    return trial


@pytest.mark.parametrize("sampler", [gaussian, parzen, random])
def test_it_is_optunas_own(sampler: Any) -> None:
    study = study_of(sampler())
    known = study.trials
    asked = study.ask()
    SPACE.suggest(asked)
    found, recipe = propose(SPACE, blank(8), known, sampler())
    assert found.params == asked.params
    assert found.distributions == asked.distributions
    assert len(found.params) == SPACE.dimensions
    assert recipe == SPACE.recipe(found.params) == SPACE.suggest(optuna.trial.FixedTrial(found.params))


@pytest.mark.parametrize("sampler", [gaussian, parzen])
def test_on_axes_it_is_optunas_own_of_several_objectives(sampler: Any) -> None:
    known = study_of(sampler()).trials
    axes = {t.number: ((t.number * 0.37) % 1, (t.number * 0.61) % 1, -float(t.number % 3)) for t in known if t.number != 5}
    study = optuna.create_study(directions=["maximize"] * 3, sampler=sampler())
    for trial in (t for t in known if t.number in axes):
        study.add_trial(create_trial(params=trial.params, distributions=trial.distributions, values=axes[trial.number]))
    asked = study.ask()
    SPACE.suggest(asked)
    before = [t.values for t in known]
    found, recipe = propose(SPACE, blank(8), known, sampler(), axes)
    assert found.params == asked.params
    assert recipe == SPACE.recipe(found.params)
    assert [t.values for t in known] == before, "trials of the study are not changed"
    assert found.params != propose(SPACE, blank(8), known, sampler())[0].params


@pytest.mark.parametrize("sampler", [gaussian, parzen])
def test_others_that_run_are_known_and_an_attempt_of_its_own_is_not(sampler: Any) -> None:
    known = study_of(sampler()).trials
    first, _ = propose(SPACE, blank(8), known, sampler())
    half = copy.copy(first)
    half.params = dict(list(first.params.items())[:2])
    half.system_attrs = {"gp:relative_params:0": "{}"}
    assert propose(SPACE, half, [*known, half], sampler())[0].params == first.params
    assert first.system_attrs == blank(8).system_attrs == {}
    second, _ = propose(SPACE, blank(9), [*known, first], sampler(4))
    assert second.params != first.params


def test_a_whole_proposal_stays() -> None:
    known = study_of(gaussian()).trials
    first, recipe = propose(SPACE, blank(8), known, gaussian())
    again, same = propose(SPACE, first, known[:5], gaussian(9))
    assert again is first
    assert same == recipe == complete_recipe(SPACE, first.params)
    assert complete_recipe(SPACE, {}) is None
    assert complete_recipe(SPACE, first.params | {"method": "slerp"}) is None


def test_queued_values_come_before_what_the_sampler_would_choose() -> None:
    queued = {"method": "ties", "weight:a": 0.25}
    found, _ = propose(SPACE, blank(8, system_attrs={"fixed_params": queued}), study_of(parzen()).trials, parzen())
    assert found.params | queued == found.params
    assert complete_recipe(SPACE, found.params)
