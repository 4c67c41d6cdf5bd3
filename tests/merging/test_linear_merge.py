"""The weighted sum: exact, at any rank as good as a dense SVD, and never the sum of the factors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.adapters.factors import Factors
from optimizer.merging import LowRank, merge
from optimizer.merging.algebra.compress import compressed
from optimizer.merging.algebra.lowrank import inner
from tests.merging.samples import PATHS, assert_same_change, low_rank, make_adapter, recipe, relative_error

few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 10_000)
weights = st.floats(-2, 2).filter(lambda x: abs(x) > 0.01)


@few
@given(seed=seeds, terms=st.lists(st.tuples(weights, st.integers(1, 6), st.floats(0.1, 32)), min_size=1, max_size=4))
def test_linear_is_the_weighted_sum_of_the_changes(seed: int, terms: list[tuple[float, int, float]]) -> None:
    sources = [make_adapter(seed + i, rank, alpha) for i, (_, rank, alpha) in enumerate(terms)]
    merged = merge(sources, recipe({"method": "linear"}, *(w for w, _, _ in terms)))
    for path in PATHS:
        modules = [source.modules[path] for source in sources]
        ideal = sum(w * (f.alpha / f.rank) * f.up.double() @ f.down.double() for (w, _, _), f in zip(terms, modules, strict=True))
        assert isinstance(ideal, torch.Tensor)
        size = sum(abs(w) * f.norm() for (w, _, _), f in zip(terms, modules, strict=True))
        found = merged.modules[path]
        assert float((found.delta().double().reshape(ideal.shape) - ideal).norm()) <= 1e-6 * size
        assert found.rank == sum(rank for _, rank, _ in terms)


def test_the_sum_has_no_cross_terms() -> None:
    sources = [make_adapter(1), make_adapter(2)]
    merged = merge(sources, recipe({"method": "linear"}, 1.0, 1.0))
    for path in PATHS:
        a, b = (source.modules[path] for source in sources)
        added_factors = ((a.up + b.up) @ (a.down + b.down)).reshape(a.shape)
        assert relative_error(added_factors, merged.modules[path].delta()) > 0.3


@few
@given(seed=seeds, rank=st.integers(1, 8))
def test_svd_is_the_best_approximation_of_its_rank(seed: int, rank: int) -> None:
    sources = [make_adapter(seed, 4), make_adapter(seed + 1, 3, 1.0)]
    exact = merge(sources, recipe({"method": "linear"}, 1.0, -0.7))
    merged = merge(sources, recipe({"method": "svd", "rank": rank}, 1.0, -0.7))
    for path in PATHS:
        ideal = exact.modules[path].delta().double().flatten(1)
        sigma = torch.linalg.svdvals(ideal)
        best = float((sigma[rank:].square().sum() / sigma.square().sum()).sqrt())
        assert relative_error(merged.modules[path].delta().flatten(1), ideal) == pytest.approx(best, rel=1e-4, abs=2e-6)


@few
@given(seed=seeds)
def test_svd_at_full_rank_is_linear(seed: int) -> None:
    sources = [make_adapter(seed, 6), make_adapter(seed + 1, 8, 1.0)]  # more columns together than some modules have rows
    assert_same_change(
        merge(sources, recipe({"method": "svd", "rank": 14}, 0.3, 1.0)), merge(sources, recipe({"method": "linear"}, 0.3, 1.0))
    )


@few
@given(seed=seeds, scale=st.integers(-20, 20))
def test_concatenation_balances_the_factors_without_changing_a_bit(seed: int, scale: int) -> None:
    source = make_adapter(seed, 4, 4.0, paths=PATHS[1:2])
    f = source.modules[PATHS[1]]
    uneven = Factors(f.up * 2.0**scale, f.down, f.alpha, f.shape)
    even = merge([replace(source, modules={PATHS[1]: uneven})], recipe({"method": "linear"}, 1.0)).modules[PATHS[1]]
    assert torch.equal(even.delta(), uneven.delta())
    ratio = even.up.norm(dim=0) / even.down.norm(dim=1)
    assert bool(((ratio > 0.49) & (ratio < 2.05)).all())


def test_an_untrained_source_merges_to_zero() -> None:
    blank = LowRank(torch.zeros(1, 8, 2), torch.randn(1, 2, 8))
    for change in (blank, blank.dense()):
        for rank in (None, 1, 2):
            assert float(compressed(change, rank).dense().abs().max()) == 0


@few
@given(seed=seeds)
def test_inner_products_equal_those_of_the_dense_changes(seed: int) -> None:
    sources = [make_adapter(seed, 4, 2.0), make_adapter(seed + 1, 3, 5.0)]
    for path in PATHS:
        a, b = (source.modules[path] for source in sources)
        dense = [f.delta().flatten(1) for f in (a, b)]
        wanted = float((dense[0].double() * dense[1].double()).sum())
        size = a.norm() * b.norm()
        (low, other), (full, fuller) = (low_rank(a), low_rank(b)), (dense[0][None], dense[1][None])
        for left, right in ((low, other), (low, fuller), (full, other), (full, fuller)):
            assert float(inner(left, right)) == pytest.approx(wanted, abs=1e-6 * size)
        assert float(inner(low, low)) == pytest.approx(a.norm() ** 2)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (20, 20)])
@pytest.mark.parametrize("rank", [1, 5, 11, 12, 30])
def test_a_dense_change_is_compressed_as_well_as_by_a_dense_svd(shape: tuple[int, int], rank: int) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(rank))
    found = compressed(matrix[None], rank)
    sigma = torch.linalg.svdvals(matrix.double())
    best = float((sigma[rank:].square().sum() / sigma.square().sum()).sqrt())
    assert relative_error(found.dense()[0], matrix) == pytest.approx(best, rel=1e-5, abs=1e-6)
    assert found.rank == min(rank, *shape)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_a_dense_change_without_a_rank_is_kept_to_the_bit(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape)
    assert torch.equal(compressed(matrix[None], None).dense()[0], matrix)


def test_components_that_are_only_rounding_are_zero_not_huge() -> None:
    """Entries so small that the norm of a row underflows once became factors of 1e14, which half precision cannot hold."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 40, generator=generator) * torch.tensor([1.0] * 3 + [1e-26] * 9)[:, None]
    factors = compressed(matrix[None], 8)
    assert float(factors.up.abs().max()) < 10
    assert float(factors.down.abs().max()) < 10
    torch.testing.assert_close(factors.dense()[0], matrix)
