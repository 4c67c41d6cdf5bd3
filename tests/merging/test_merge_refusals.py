"""Sources that do not fit together, or a merge of nothing, are refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.errors import RecipeError
from optimizer.merging import Recipe, merge, shared_modules
from tests.merging.samples import NEUTRAL, PATHS, UNCALIBRATED, make_adapter, recipe

LINEAR = Recipe(method="linear", weights=(1.0, 1.0))


def test_different_base_models_are_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"sources: .*different base models \(lora1: sd1, lora2: sdxl\) — merge sources of one base model"
    ):
        merge([make_adapter(1, base="sd1"), make_adapter(2, base="sdxl")], LINEAR)


def test_an_unknown_base_goes_with_any() -> None:
    assert merge([make_adapter(1), make_adapter(2, base="sd2")], LINEAR).base == "sd2"
    assert merge([make_adapter(1), make_adapter(2)], LINEAR).base == "unknown"


def test_different_shapes_are_refused() -> None:
    other = Adapter("wide", {PATHS[1]: Factors(torch.ones(16, 1), torch.ones(1, 20), 1.0, (16, 20))}, sha256="0" * 64)
    with pytest.raises(RecipeError, match=rf"{PATHS[1]}: .*different shapes \(lora1: \(16, 16\), wide: \(16, 20\)\) — "):
        merge([make_adapter(1), other], LINEAR)


@pytest.mark.parametrize("method", UNCALIBRATED)
def test_a_matrix_goes_with_a_1_by_1_convolution(method: str) -> None:
    """LyCORIS stores the one for the other; the merge is the convolution, in either order."""
    matrix, other = make_adapter(1), make_adapter(2)
    shapes = {path: (*f.shape, 1, 1) if len(f.shape) == 2 else f.shape for path, f in other.modules.items()}
    point = replace(other, modules={path: replace(f, shape=shapes[path]) for path, f in other.modules.items()})
    settings = {"method": method, **NEUTRAL[method]}
    for pair, twins in (([matrix, point], [matrix, other]), ([point, matrix], [other, matrix])):
        merged, plain = merge(pair, recipe(settings, 0.5, 0.5)), merge(twins, recipe(settings, 0.5, 0.5))
        for path, factors in merged.modules.items():
            assert factors.shape == shapes.get(path, plain.modules[path].shape)
            torch.testing.assert_close(factors.delta().flatten(1), plain.modules[path].delta().flatten(1), rtol=1e-3, atol=1e-4)


def test_different_shapes_are_refused_even_among_sources_of_one_name() -> None:
    one = make_adapter(1)
    twin = Adapter(one.name, {PATHS[1]: Factors(torch.ones(16, 1), torch.ones(1, 20), 1.0, (16, 20))}, base="sd1", sha256="0" * 64)
    with pytest.raises(RecipeError, match="different shapes"):
        merge([one, twin], LINEAR)
    with pytest.raises(RecipeError, match="different base models"):
        merge([replace(one, base="sdxl"), twin], LINEAR)


@pytest.mark.parametrize("method", UNCALIBRATED)
def test_values_that_are_not_finite_are_refused_by_module(method: str) -> None:
    source = make_adapter(1)
    broken = source.modules[PATHS[2]].up.clone()
    broken[0, 0] = torch.nan
    bad = replace(source, modules={**source.modules, PATHS[2]: replace(source.modules[PATHS[2]], up=broken)})
    with pytest.raises(RecipeError, match=f"{PATHS[2]}: .*not finite — look for NaN"):
        merge([bad], recipe({"method": method, **NEUTRAL[method]}, 1.0))


def test_a_merge_of_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"recipe: weights: nothing is left to merge: .* — give a source a weight other than 0"):
        merge([make_adapter(1), make_adapter(2)], Recipe(method="linear", weights=(0.0, 0.0)))


def test_sources_without_common_modules_merge_and_can_be_told() -> None:
    one, two = make_adapter(1, paths=PATHS[:2]), make_adapter(2, paths=PATHS[2:])
    assert shared_modules([one, two]) == ()
    assert shared_modules([]) == ()
    assert set(merge([one, two], LINEAR).modules) == set(PATHS)
