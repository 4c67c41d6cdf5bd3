"""The search space: how large it is for a budget, what a proposal means, what a study begins with, who proposes."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
import torch
from optuna.samplers import GPSampler, TPESampler

from optimizer import Adapter, load_adapter
from optimizer.adapters import Factors
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.merge_plan import plan
from optimizer.merging import METHODS, block_map, block_weight, shared_modules
from optimizer.search.labels import is_alone
from optimizer.search.loop import first_trials
from optimizer.search.proposals.initial_trials import baselines, defaults
from optimizer.search.proposals.sampler import sampler_for
from optimizer.search.proposals.space import SearchSpace, space_for
from tests.merging.samples import UNCALIBRATED
from tests.studio import Studio

ALL = tuple(UNCALIBRATED)


@pytest.fixture(scope="module")
def adapters(studio: Studio) -> list[Adapter]:
    return [load_adapter(path) for path in studio.sources[:2]]


def space(adapters: list[Adapter], budget: int, methods: tuple[str, ...] = ("ties", "dare_linear"), rank: int | None = None) -> SearchSpace:
    return space_for(adapters, budget=budget, methods=methods, rank=rank, dtype="fp16", seed=3)


@pytest.mark.parametrize(
    ("budget", "groups"),
    [(3, ()), (19, ()), (20, ("OUT",)), (29, ("OUT",)), (30, ("IN", "OUT")), (40, ("TE", "IN", "OUT")), (50, ("TE", "IN", "MID", "OUT"))],
)
def test_block_weights_come_with_the_budget(adapters: list[Adapter], budget: int, groups: tuple[str, ...]) -> None:
    assert space(adapters, budget).groups == (groups, groups)


def test_a_source_gets_weights_only_for_blocks_that_it_changes(adapters: list[Adapter]) -> None:
    unet = {path: factors for path, factors in adapters[1].modules.items() if path.startswith("unet.up")}
    found = space([adapters[0], replace(adapters[1], modules=unet)], 50)
    assert found.groups == (("TE", "IN", "MID", "OUT"), ("OUT",))


FLUX = {
    **{f"transformer.transformer_blocks.{i}.attn.to_q": "DOUBLE_00-09" if i < 10 else "DOUBLE_10-18" for i in (0, 9, 10, 18)},
    **{f"transformer.single_transformer_blocks.{i}.attn.to_q": "SINGLE_00-18" if i < 19 else "SINGLE_19-37" for i in (18, 19)},
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": "TE",
}
TRANSFORMERS = {
    "flux1": FLUX,
    "sd3": {"transformer.transformer_blocks.0.attn.to_q": "JOINT_00-18", "transformer.transformer_blocks.20.attn.to_q": "JOINT_19-37"},
    "qwen-image": {f"transformer.transformer_blocks.{i}.attn.to_q": "JOINT_00-29" if i < 30 else "JOINT_30-59" for i in (29, 30)},
}


@pytest.mark.parametrize(("base", "groups"), TRANSFORMERS.items(), ids=TRANSFORMERS)
def test_block_weights_are_searched_for_every_family(base: str, groups: dict[str, str]) -> None:
    """Halves of every run of blocks, and the text encoders; a weight reaches the blocks of its half and no others."""
    factors = Factors(torch.ones(4, 1), torch.ones(1, 4), 1.0, (4, 4))
    pair = [Adapter(name, dict.fromkeys(groups, factors), base=base, sha256=name * 64) for name in ("a", "b")]
    found = space(pair, 200)
    assert set(found.groups[0]) == set(groups.values())
    assert all(block_map(base).group_of(path) == label for path, label in groups.items())
    for label in found.groups[0]:
        blocks = found.recipe({"weight:a": 1.0, "weight:b": 1.0, f"block:a:{label}": 0.5}).blocks
        reached = {path for path in groups if block_weight(path, blocks[0], base) == 0.5}
        assert reached == {path for path, own in groups.items() if own == label}
        assert blocks[1] == {}


def test_groups_of_blocks_come_in_the_order_of_the_network() -> None:
    factors = Factors(torch.ones(4, 1), torch.ones(1, 4), 1.0, (4, 4))
    pair = [Adapter(name, dict.fromkeys(FLUX, factors), base="flux1") for name in ("a", "b")]
    assert space(pair, 200).groups[0] == ("TE", "DOUBLE_00-09", "DOUBLE_10-18", "SINGLE_00-18", "SINGLE_19-37")
    assert space(pair, 30).groups[0] == ("DOUBLE_10-18", "SINGLE_19-37")


@pytest.mark.parametrize("method", [name for name, method in UNCALIBRATED.items() if method.rank != "required" and method.most != 1])
def test_a_search_and_a_single_merge_write_one_recipe_for_one_merge(studio: Studio, adapters: list[Adapter], method: str) -> None:
    """Their hashes name evaluations: a merge that was scored is found again by who makes it by hand."""
    searched = space(adapters, 50, (method,)).recipe({"method": method, "weight:alba": 0.7, "weight:bruno": 0.5})
    seed = searched.seed if METHODS[method].seeded else None
    options = MergeOptions(sources=tuple(map(str, studio.sources[:2])), method=method, weights=(0.7, 0.5), seed=seed)
    assert plan(None, options).recipe.hash == searched.hash


def test_what_is_searched_is_told_in_one_line(adapters: list[Adapter]) -> None:
    assert space(adapters, 3, ()).summary() == "searched: weights 0.1 to 1.3 of alba, bruno; methods linear"
    assert space(adapters, 30, ("dare_linear",)).summary() == (
        "searched: weights 0.1 to 1.3 of alba, bruno; block weights 0.5 to 1.5 (IN, OUT); methods linear, dare_linear; density, rescale"
    )
    unet = {path: factors for path, factors in adapters[1].modules.items() if path.startswith("unet.up")}
    assert "(alba: IN, OUT; bruno: OUT)" in space([adapters[0], replace(adapters[1], modules=unet)], 30).summary()


def test_the_number_of_dimensions(adapters: list[Adapter]) -> None:
    assert space(adapters, 3, ()).dimensions == 2
    assert space(adapters, 50, ("linear",)).dimensions == 2 + 8
    assert space(adapters, 50, ("ties",)).dimensions == 2 + 8 + 1 + 3


def test_methods_share_the_parameters_that_they_have_in_common(adapters: list[Adapter]) -> None:
    assert [p.name for p in space(adapters, 50, ("ties", "dare_linear")).parameters] == ["density", "elect_on", "normalise", "rescale"]
    for parameter in space(adapters, 50, ALL).parameters:
        assert all(p == parameter for method in METHODS.values() for p in method.parameters if p.name == parameter.name)


def test_the_weighted_sum_is_always_the_first_method_and_no_method_comes_twice(adapters: list[Adapter]) -> None:
    assert space(adapters, 3, ("ties", "linear", "ties", "svd")).methods == ("linear", "ties")
    assert space(adapters, 3, ("linear", "dare_linear"), rank=2).methods == ("svd", "dare_linear")


def test_what_is_not_named_keeps_its_default(adapters: list[Adapter]) -> None:
    found = space(adapters, 50, ALL)
    weights = {"weight:alba": 0.7, "weight:bruno": 0.123456}
    plain = found.recipe(weights)
    assert (plain.method, plain.weights, plain.rank, plain.blocks, plain.seed) == ("linear", (0.7, 0.1235), None, (), 0)
    assert plain.sources == tuple(a.sha256 for a in adapters)
    ties = found.recipe(weights | {"method": "ties"})
    assert (ties.density, ties.elect_on, ties.normalise, ties.scale, ties.rank) == (0.4, "raw", "count", 1.0, 2 + 3)
    assert found.recipe(weights | {"method": "dare_linear"}).seed == 3


def test_block_weights_of_1_are_left_out(adapters: list[Adapter]) -> None:
    found = space(adapters, 50)
    values = {"weight:alba": 1.0, "weight:bruno": 1.0, "block:alba:IN": 1.0, "block:bruno:OUT": 0.5, "block:bruno:IN": 1.00001}
    assert [dict(b) for b in found.recipe(values).blocks] == [{}, {"OUT": 0.5}]
    same = found.recipe({"weight:alba": 1.0, "weight:bruno": 1.0, "block:alba:IN": 1.0})
    assert same.hash == found.recipe({"weight:alba": 1.0, "weight:bruno": 1.0}).hash


def test_a_rank_bounds_every_method(adapters: list[Adapter]) -> None:
    found = space(adapters, 50, ("ties",), rank=3)
    weights = {"weight:alba": 1.0, "weight:bruno": 1.0}
    assert [found.recipe(weights | {"method": m}).rank for m in found.methods] == [3, 3]


@pytest.mark.parametrize("method", ["linear", *[m for m in UNCALIBRATED if m not in ("linear", "concat", "svd")]])
def test_a_proposal_is_a_valid_recipe_with_every_parameter_of_its_method(adapters: list[Adapter], method: str) -> None:
    found = space(adapters, 50, ALL)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.enqueue_trial({"method": method})
    trial = study.ask()
    recipe = found.suggest(trial)
    assert recipe.method == method
    assert len(trial.params) == found.dimensions
    for parameter in {p.name for p in METHODS[method].parameters if p.searched}:
        value = trial.params[parameter]
        assert getattr(recipe, parameter) == (round(value, 4) if isinstance(value, float) else value)
    assert found.recipe(trial.params) == recipe


def test_a_study_begins_with_the_baselines_and_then_what_people_try_first(adapters: list[Adapter]) -> None:
    found = space(adapters, 50)
    begun = [(start.label, found.recipe(start.values)) for start in first_trials(found, 50)]
    assert [label for label, _ in begun] == [
        *("alba alone", "bruno alone", "stack", "naive", "equal 1/√N", "equal 0.8", "ties default", "dare_linear default")
    ]
    assert [recipe.weights for _, recipe in begun] == [
        *((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5), (0.7071, 0.7071), (0.8, 0.8), (1.0, 1.0), (1.0, 1.0))
    ]
    assert [recipe.method for _, recipe in begun] == ["linear"] * 6 + ["ties", "dare_linear"]
    assert all(recipe.blocks == () for _, recipe in begun)
    assert [is_alone(label) for label, _ in begun] == [True, True] + [False] * 6


def test_three_sources_share_the_naive_merge(studio: Studio) -> None:
    three = [load_adapter(path) for path in studio.sources[:3]]
    found = space(three, 50)
    assert [found.recipe(start.values).weights for start in baselines(found)] == [
        *((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0), (0.3333, 0.3333, 0.3333))
    ]


@pytest.mark.parametrize(("budget", "count"), [(3, 0), (4, 1), (11, 2), (16, 4), (400, 4)])
def test_default_recipes_take_a_quarter_of_the_budget_at_most(adapters: list[Adapter], budget: int, count: int) -> None:
    found = space(adapters, budget)
    assert len(defaults(found, budget // 4)) == count
    assert len(first_trials(found, budget)) == 4 + count


def test_every_first_trial_lies_in_the_space(adapters: list[Adapter]) -> None:
    found = space(adapters, 50, ALL)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for start in first_trials(found, 50):
        study.enqueue_trial(start.values)
        trial = study.ask()  # a value out of range would be a warning, and so an error
        assert found.suggest(trial, start.values) == found.recipe(start.values)


@pytest.mark.parametrize(
    ("number", "dimensions", "kind"), [(0, 2, GPSampler), (399, 20, GPSampler), (400, 20, TPESampler), (0, 21, TPESampler)]
)
def test_who_proposes(number: int, dimensions: int, kind: type) -> None:
    assert isinstance(sampler_for(number, seed=0, dimensions=dimensions, startup=5), kind)


@pytest.mark.parametrize(("number", "axes", "kind"), [(199, 4, GPSampler), (200, 4, TPESampler), (0, 5, TPESampler)])
def test_who_proposes_for_a_front(number: int, axes: int, kind: type) -> None:
    assert isinstance(sampler_for(number, seed=0, dimensions=20, startup=5, axes=axes), kind)
    assert isinstance(sampler_for(number, seed=0, dimensions=30, startup=5, axes=axes, kind="gp"), GPSampler)


@pytest.mark.parametrize("dimensions", [2, 30])
def test_a_trial_is_proposed_by_seed_and_number_alone(dimensions: int) -> None:
    def proposed(number: int, seed: int) -> float:
        study = optuna.create_study(sampler=sampler_for(number, seed=seed, dimensions=dimensions, startup=5))
        return study.ask().suggest_float("x", 0, 1)

    assert proposed(4, 7) == proposed(4, 7)
    assert len({proposed(4, 7), proposed(5, 7), proposed(4, 8)}) == 3


def test_samples_share_modules(adapters: list[Adapter]) -> None:
    """What these tests stand on: the studio's sources meet in every family of blocks."""
    assert len(shared_modules(adapters)) == len(adapters[0].modules) > 20
    assert all(isinstance(f, Factors) for f in adapters[0].modules.values())
