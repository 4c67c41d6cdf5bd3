"""A merge that was tried is not proposed again while a merge near it was not."""

from __future__ import annotations

import itertools
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from optimizer.search.proposals.ask import propose
from optimizer.search.proposals.bounds import Bounds
from optimizer.search.proposals.neighbours import unknown_neighbour
from optimizer.search.proposals.sampler import sampler_for
from optimizer.search.proposals.space import SearchSpace

SPACE = SearchSpace(
    names=("a", "b"),
    hashes=("0" * 64, "1" * 64),
    methods=("linear",),
    groups=((), ()),
    blocks={},
    rank=None,
    sum_of_ranks=8,
    dtype="fp16",
    seed=0,
    bounds=Bounds(ranges={"a": (0.1, 0.3), "b": (0.1, 0.3)}, grid=0.1),
)
PLACES = [{"weight:a": a, "weight:b": b} for a, b in itertools.product((0.1, 0.2, 0.3), repeat=2)]


def recipe_hash(values: dict[str, Any]) -> str:
    return SPACE.recipe(values).hash


def nearest(values: dict[str, float], known: list[dict[str, float]], *fixed: str) -> dict[str, Any] | None:
    return unknown_neighbour(SPACE, values, SPACE.distributions(), {recipe_hash(place) for place in known}, fixed)


def test_an_unknown_merge_stays() -> None:
    assert nearest(PLACES[4], PLACES[:4]) == PLACES[4]


def test_the_nearest_unknown_merge_is_taken_and_the_first_of_equals() -> None:
    assert nearest(PLACES[4], [PLACES[4]]) == {"weight:a": 0.1, "weight:b": 0.2}
    assert nearest(PLACES[0], [PLACES[0]]) == {"weight:a": 0.2, "weight:b": 0.1}
    assert nearest(PLACES[0], PLACES[:-1]) == PLACES[-1]
    assert nearest(PLACES[0], PLACES) is None


def test_values_that_were_given_and_values_without_a_grid_stay() -> None:
    assert nearest(PLACES[0], [PLACES[0]], "weight:a") == {"weight:a": 0.1, "weight:b": 0.2}
    assert nearest(PLACES[0], [PLACES[0]], "weight:a", "weight:b") is None
    free = SearchSpace(**{**vars(SPACE), "bounds": Bounds()})
    assert unknown_neighbour(free, PLACES[0], free.distributions(), {free.recipe(PLACES[0]).hash}, ()) is None


def test_a_search_visits_every_place_of_a_small_grid_once_and_then_repeats() -> None:
    study = optuna.create_study(direction="maximize")
    found: list[dict[str, Any]] = []
    for number in range(11):
        trial = create_trial(state=TrialState.RUNNING)
        trial.number = trial._trial_id = number
        sampler = sampler_for(number, seed=0, dimensions=2, startup=4)
        proposal, recipe = propose(SPACE, trial, study.get_trials(), sampler)
        assert recipe == SPACE.recipe(proposal.params)
        found.append(proposal.params)
        study.add_trial(create_trial(params=proposal.params, distributions=proposal.distributions, value=-sum(proposal.params.values())))
    assert sorted(map(recipe_hash, found[:9])) == sorted(map(recipe_hash, PLACES))
    assert all(place in PLACES for place in found[9:])
