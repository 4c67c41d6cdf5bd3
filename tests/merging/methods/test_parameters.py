"""Parameters: declared once, exactly those that a method's function reads, and never with another default."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

from optimizer.jobs.merge_options import MergeOptions
from optimizer.merging import METHODS, PARAMETERS, Method, Recipe

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
every_function = pytest.mark.parametrize("method", [m for m in METHODS.values() if not m.solved], ids=lambda m: m.name)

# What recipes leave out, and so what their hashes stand for.
DEFAULTS: dict[str, Any] = {
    **{"density": 1.0, "epsilon": 0.0, "gamma": 0.0, "elect_on": "raw", "majority": "total", "normalise": "count", "rescale": "inverse"},
    **{"mask_scale": 0.4, "quorum": 2, "isotropy": 1.0, "side": "input", "strength": 1.0, "scale": 1.0},
    **{"train_steps": 150, "checkpoint": 100, "correction": 0, "neutral_prompts": 0, "truncation": "outputs"},
    **{"ridge": 0.01, "balance": "equal", "rounds": 2},
}


@every_method
def test_a_parameter_is_declared_once(method: Method) -> None:
    assert all(parameter is PARAMETERS[parameter.name] for parameter in method.parameters)
    assert len({p.name for p in method.parameters}) == len(method.parameters)


@every_function
def test_a_function_reads_the_parameters_of_its_method(method: Method) -> None:
    """Nothing else of the recipe but the seed; mypy checks that it reads nothing else of its settings."""
    settings = get_type_hints(method.function)["settings"]
    read = {name for name, _ in inspect.getmembers(settings, lambda member: isinstance(member, property))}
    assert read == {p.name for p in method.parameters} | ({"seed"} if method.seeded else set())


def test_defaults_never_change() -> None:
    assert {name: parameter.default for name, parameter in PARAMETERS.items() if name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("name", PARAMETERS)
def test_recipes_and_options_have_a_field_for_every_parameter(name: str) -> None:
    parameter, field, option = PARAMETERS[name], Recipe.model_fields[name], MergeOptions.model_fields[name]
    assert (field.default, field.annotation) == (parameter.default, parameter.value_type)
    assert (option.default, option.annotation) == (None, parameter.value_type | None)
    assert parameter.description == field.description == option.description
    assert parameter.description.endswith(".")


@pytest.mark.parametrize("name", PARAMETERS)
def test_values_are_of_one_type(name: str) -> None:
    parameter = PARAMETERS[name]
    assert {type(value) for value in (parameter.default, parameter.start, *parameter.choices)} == {type(parameter.default)}
    if parameter.choices:
        assert {parameter.default, parameter.start} <= set(parameter.choices)
    else:
        assert not isinstance(parameter.start, str)
        assert not parameter.searched or parameter.low <= parameter.start <= parameter.high


def test_recipe_files_list_parameters_in_the_order_that_they_always_had() -> None:
    assert [name for name in Recipe.model_fields if name in DEFAULTS] == list(DEFAULTS)
    fields = list(Recipe.model_fields)
    assert fields[:4] == ["method", "weights", "sources", "blocks"]
    assert fields[-7:] == ["rank", "rank_energy", "prune", "target_mb", "dtype", "seed", "calibration"]
