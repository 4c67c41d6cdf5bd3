"""Ranges, fixed weights and the grid: which values they allow, and which texts are refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.errors import UsageError
from optimizer.search.config import Search
from optimizer.search.proposals.bounds import Bounds, on_grid

NAMES = ("alba", "bruno", "carla")


@given(st.floats(-2, 2), st.floats(0.05, 2), st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.25]))
def test_the_ends_move_inwards_to_multiples(low: float, width: float, grid: float) -> None:
    first, last = on_grid(low, low + width, grid)
    assert low - 1e-6 <= first < low + grid
    assert low + width - grid < last <= low + width + 1e-6
    for end in (first, last):
        assert abs(end / grid - round(end / grid)) < 1e-6


@given(st.floats(-1, 3), st.sampled_from([0.0, 0.05, 0.1]))
def test_the_nearest_value_can_be_proposed(value: float, grid: float) -> None:
    bounds = Bounds(grid=grid)
    moved = bounds.nearest(value, 0.1, 1.3)
    assert bounds.distribution(0.1, 1.3)._contains(moved)
    if 0.1 <= value <= 1.3:
        assert abs(moved - value) <= grid / 2 + 1e-9


@pytest.mark.parametrize("value", [0.0, 0.4, 0.7071, 1.3, 2.0])
def test_a_value_that_was_given_is_always_allowed(value: float) -> None:
    found = Bounds(grid=0.05).distribution(0.1, 1.3, value)
    assert found._contains(value)
    assert found.step == (0.05 if value in (0.4, 1.3) else None)


def test_sources_are_named_or_counted() -> None:
    found = Bounds.of(Search(weights=("bruno=0.42:0.9", "3=-0.5:1.5"), freeze=("1=0.8",), grid=0.05), NAMES)
    assert found.ranges == {"bruno": (0.45, 0.9), "carla": (-0.5, 1.5)}
    assert found.frozen == {"alba": 0.8}
    assert Bounds.of(Search(grid=0), NAMES).described() == {}


REFUSED = [
    ({"weights": ("zoe=0:1",)}, "--weights: there is no source 'zoe' — name one of alba, bruno, carla, or a position from 1 to 3"),
    ({"weights": ("alba=0.5",)}, "--weights: got 'alba=0.5' — write NAME=LOW:HIGH with two numbers, such as hero=0.4:0.9"),
    ({"weights": ("alba=0.2:inf",)}, "--weights: got 'alba=0.2:inf' — write NAME=LOW:HIGH with two numbers, such as hero=0.4:0.9"),
    (
        {"weights": ("alba=0.9:0.4",)},
        "--weights: the first number of 'alba=0.9:0.4' is not below the second — write NAME=LOW:HIGH, such as hero=0.4:0.9; "
        "a single weight is fixed with --freeze NAME=WEIGHT",
    ),
    ({"weights": ("alba=0:1", "1=0:1")}, "--weights: names alba twice — give one range for each source"),
    (
        {"weights": ("alba=0.41:0.44",)},
        "--weights: less than two multiples of 0.05 are from 0.41 to 0.44, the range of alba — widen it, or give a smaller step with "
        "--grid",
    ),
    ({"freeze": ("alba=much",)}, "--freeze: got 'alba=much' — write NAME=WEIGHT with a number, such as hero=0.8"),
    (
        {"weights": ("alba=0:1",), "freeze": ("1=0.5",)},
        "--freeze: alba is in --weights, too — give alba a range with --weights, or one weight with --freeze",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_is_refused(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Bounds.of(Search(**options), NAMES)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_a_grid_that_recipes_cannot_store() -> None:
    assert math.isclose(on_grid(0.0005, 1, 0.001)[0], 0.001)
