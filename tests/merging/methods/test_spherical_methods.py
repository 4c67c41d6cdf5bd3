"""Slerp and the Karcher mean where their formulas divide by zero: end points, parallel, opposite and empty sources."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.adapters.adapter import Adapter
from optimizer.merging import merge
from tests.merging.samples import PATHS, assert_same_change, make_adapter, recipe, relative_error

SPHERICAL = ["slerp", "nuslerp", "karcher"]
each = pytest.mark.parametrize("method", SPHERICAL)
few = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)


def times(adapter: Adapter, factor: float, name: str = "other") -> Adapter:
    modules = {path: replace(f, up=factor * f.up) for path, f in adapter.modules.items()}
    return replace(adapter, name=name, modules=modules, sha256=hashlib.sha256(name.encode()).hexdigest())


@each
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0)])
def test_at_an_end_point_one_source_is_left(method: str, weights: tuple[float, float]) -> None:
    pair = [make_adapter(1), make_adapter(2, 5, 2.0)]
    assert_same_change(merge(pair, recipe({"method": method}, *weights)), pair[weights.index(1.0)])


@each
@few
@given(seed=seeds, w=st.floats(0.05, 1).map(lambda x: round(x, 2)), factor=st.sampled_from([1.0, 2.0, 0.25]))
def test_parallel_sources_give_the_weighted_sum(method: str, seed: int, w: float, factor: float) -> None:
    first = make_adapter(seed)
    merged = merge([first, times(first, factor)], recipe({"method": method}, w, 0.5))
    assert_same_change(merged, first, factor=w + 0.5 * factor, tolerance=1e-5)


@each
@few
@given(seed=seeds, w=st.floats(0.05, 1).map(lambda x: round(x, 2)))
def test_a_source_at_a_negative_weight_is_its_opposite_at_a_positive_one(method: str, seed: int, w: float) -> None:
    first, second = make_adapter(seed), make_adapter(seed + 1, 2)
    plain = merge([first, times(second, -1.0)], recipe({"method": method}, w, 0.5))
    assert_same_change(merge([first, second], recipe({"method": method}, w, -0.5)), plain, tolerance=1e-5)


@pytest.mark.parametrize("method", ["slerp", "nuslerp"])
def test_opposite_sources_are_interpolated_plainly(method: str) -> None:
    first = make_adapter(1)
    assert_same_change(merge([first, times(first, -2.0)], recipe({"method": method}, 0.7, 0.3)), first, factor=0.7 - 0.6, tolerance=1e-4)


@each
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.7, 0.3), (1.0, 1.0)])
def test_opposite_sources_give_a_finite_merge_no_longer_than_their_sum(method: str, weights: tuple[float, float]) -> None:
    first = make_adapter(1)
    merged = merge([first, times(first, -1.0)], recipe({"method": method}, *weights))
    for path in PATHS:
        change = merged.modules[path].delta()
        assert bool(torch.isfinite(change).all())
        assert float(change.norm()) <= sum(weights) * first.modules[path].norm() * (1 + 1e-5)


@each
@pytest.mark.parametrize("zero", [0, 1])
def test_a_source_that_changes_nothing_leaves_a_finite_part_of_the_other(method: str, zero: int) -> None:
    full = make_adapter(1)
    pair = [full, times(full, 0.0)]
    merged = merge(pair if zero else pair[::-1], recipe({"method": method}, 0.5, 0.5))
    for path in PATHS:
        found, whole = merged.modules[path].delta(), full.modules[path].delta()
        share = float((found * whole).sum() / whole.square().sum())
        assert 0.45 < share < 0.75
        assert relative_error(found, share * whole) <= 1e-5


@each
def test_sources_that_change_nothing_at_all_give_nothing(method: str) -> None:
    blank = times(make_adapter(1), 0.0)
    for factors in merge([blank, times(make_adapter(2), 0.0, "b")], recipe({"method": method}, 0.5, 0.5)).modules.values():
        assert float(factors.delta().abs().max()) == 0


@few
@given(seed=seeds, w=st.floats(0.1, 1).map(lambda x: round(x, 2)), v=st.floats(0.1, 1).map(lambda x: round(x, 2)))
def test_for_two_sources_of_equal_norm_the_karcher_mean_is_slerp(seed: int, w: float, v: float) -> None:
    path = PATHS[1]
    first, second = (make_adapter(seed + i, paths=[path]) for i in range(2))
    second = times(second, first.modules[path].norm() / second.modules[path].norm())
    karcher, slerp = (merge([first, second], recipe({"method": m}, w, v)) for m in ("karcher", "slerp"))
    assert_same_change(karcher, slerp, tolerance=1e-5)


@few
@given(seed=seeds, factor=st.sampled_from([0.5, 3.0]))
def test_the_length_between_sources_of_one_length_is_theirs(seed: int, factor: float) -> None:
    """What plain interpolation loses, a merge on the sphere keeps."""
    path = PATHS[1]
    first, second = (make_adapter(seed + i, paths=[path]) for i in range(2))
    second = times(second, first.modules[path].norm() / second.modules[path].norm())
    norm = first.modules[path].norm()
    for method in ("slerp", "karcher"):
        merged = merge([first, second], recipe({"method": method}, 0.5 * factor, 0.5 * factor))
        assert merged.modules[path].norm() == pytest.approx(factor * norm, rel=1e-4)
    assert merge([first, second], recipe({"method": "linear"}, 0.5, 0.5)).modules[path].norm() < 0.95 * norm
