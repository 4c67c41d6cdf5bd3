"""Routers against dense matrices in double precision, and the merge that applies one."""

from __future__ import annotations

import doctest
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.adapters.adapter import Adapter
from optimizer.errors import RecipeError
from optimizer.merging import LowRank, Merger, Recipe, Router, block_weight, merge, merge_report, router
from optimizer.merging.algebra.compress import compressed
from tests.merging.samples import PATHS, assert_same_change, make_adapter, random_router, relative_error, uneven_sources

few = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)
weights = st.sampled_from([-1.3, -0.25, 0.0, 0.1, 0.7, 1.0])
blocks = st.dictionaries(st.sampled_from(["IN", "IN04", "MID", "OUT", "TE"]), st.sampled_from([0.0, 0.5, -1.0, 1.7]), max_size=3)


def dense(adapters: Sequence[Adapter], path: str, matrix: np.ndarray, rows: Sequence[float]) -> torch.Tensor:
    """up_cat · diag(w) · R · down_cat of one module, from the sources' factors as they are, (out, fan_in), fp64."""
    own = [(adapter.modules[path], rows[i]) for i, adapter in enumerate(adapters) if path in adapter.modules]
    up = np.concatenate([f.up.double().numpy() for f, _ in own], axis=1)
    down = np.concatenate([f.alpha / f.rank * f.down.double().numpy() for f, _ in own])
    scale = np.concatenate([np.full(f.rank, weight) for f, weight in own])
    return torch.from_numpy(up @ (scale[:, None] * matrix) @ down)


def matrix_of(found: Router, path: str) -> np.ndarray:
    matrix = found.matrices[path].double().numpy()
    return np.diag(matrix) if matrix.ndim == 1 else matrix


def routed(found: Router, *values: float, **more: object) -> Recipe:
    return Recipe(method="routed", weights=values, calibration=found.hash, **more)


@few
@given(seed=seeds, own=st.tuples(weights, weights, weights).filter(any), names=st.tuples(blocks, blocks, blocks))
def test_a_full_router_is_the_dense_product_scaled_by_weights_and_block_weights(
    seed: int, own: tuple[float, ...], names: tuple[dict[str, float], ...]
) -> None:
    adapters = uneven_sources(seed)
    found = random_router(adapters, seed)
    rows = {path: [w * block_weight(path, b) for w, b in zip(own, names, strict=True)] for path in PATHS}
    live = {path for path in PATHS if any(w for w, adapter in zip(rows[path], adapters, strict=True) if path in adapter.modules)}
    for merger in (Merger(adapters, routers=[found]), Merger(adapters, routers=[found], keep=False)):
        if not live:
            with pytest.raises(RecipeError, match="nothing is left to merge"):
                merger.merge(routed(found, *own, blocks=names))
            continue
        merged = merger.merge(routed(found, *own, blocks=names))
        assert set(merged.modules) == live
        for path, factors in merged.modules.items():
            assert relative_error(factors.delta().flatten(1), dense(adapters, path, matrix_of(found, path), rows[path])) <= 1e-5, path


def test_a_full_router_whose_factors_cancel_each_other_keeps_its_value_in_sixteen_bits() -> None:
    twins = [uneven_sources(1)[0]] * 2
    stack, apart = Router.identity(twins), torch.tensor([[30.0, 30.0], [-30.0, -29.0]])
    found = Router(stack.sources, stack.ranks, {path: torch.kron(apart, torch.eye(ranks[0])) for path, ranks in stack.ranks.items()})
    exact = merge(twins, routed(found, 1.0, 1.0), routers=[found])
    rounded = Merger(twins, routers=[found]).merge(routed(found, 1.0, 1.0), dtype=torch.float16)
    for path, factors in rounded.modules.items():
        assert relative_error(factors.delta().flatten(1), exact.modules[path].delta().flatten(1)) < 1e-3, path


@few
@given(seed=seeds, own=st.tuples(weights, weights, weights).filter(all), names=st.tuples(blocks, blocks, blocks))
def test_a_diagonal_router_is_the_weighted_sum_to_the_bit(seed: int, own: tuple[float, ...], names: tuple[dict[str, float], ...]) -> None:
    adapters = uneven_sources(seed)
    found = Router.diagonal(adapters, own, names)
    assert all(matrix.ndim == 1 for matrix in found.matrices.values())
    plain = merge(adapters, Recipe(method="linear", weights=own, blocks=names))
    merged = merge(adapters, routed(found, 1.0, 1.0, 1.0), routers=[found])
    whole = all(all(own.values()) for own in names)  # else the router has columns of zeros more, which change the order of the sums
    for path, factors in plain.modules.items():
        found_delta, expected = merged.modules[path].delta(), factors.delta()
        assert torch.equal(found_delta, expected) if whole else relative_error(found_delta.flatten(1), expected.flatten(1)) < 1e-6
    for path in set(merged.modules) - set(plain.modules):
        assert not merged.modules[path].delta().any()


def test_the_stack_and_each_source_and_the_base_are_routers() -> None:
    adapters = uneven_sources()
    stack = Router.identity(adapters)
    summed = merge(adapters, Recipe(method="linear", weights=(1.0, 1.0, 1.0)))
    assert_same_change(merge(adapters, routed(stack, 1.0, 1.0, 1.0), routers=[stack]), summed, tolerance=0)
    for k, adapter in enumerate(adapters):
        alone = Router.alone(adapters, k)
        merged = merge(adapters, routed(alone, 1.0, 1.0, 1.0), routers=[alone])
        for path, factors in merged.modules.items():
            own = adapter.modules[path].delta() if path in adapter.modules else torch.zeros(factors.shape)
            assert relative_error(factors.delta(), own) <= 1e-6
    none = Router.zero(adapters)
    assert not any(f.delta().any() for f in merge(adapters, routed(none, 1.0, 1.0, 1.0), routers=[none]).modules.values())


@few
@given(seed=seeds, own=st.tuples(weights, weights, weights), names=st.tuples(blocks, blocks, blocks))
def test_rows_are_what_a_source_writes_and_columns_what_it_reads(
    seed: int, own: tuple[float, ...], names: tuple[dict[str, float], ...]
) -> None:
    adapters = uneven_sources(seed)
    found = random_router(adapters, seed)
    for path in PATHS:
        scale = np.concatenate([np.full(r, w * block_weight(path, b)) for r, w, b in zip(found.ranks[path], own, names, strict=True)])
        plain = matrix_of(found, path)
        np.testing.assert_allclose(matrix_of(found.scaled(own, names), path), scale[:, None] * plain, rtol=1e-6)
        np.testing.assert_allclose(matrix_of(found.scaled(own, names, side="input"), path), plain * scale, rtol=1e-6)


@few
@given(seed=seeds, share=st.sampled_from([-0.5, 0.0, 0.3, 1.0, 1.5]))
def test_an_interpolation_is_the_mean_of_both(seed: int, share: float) -> None:
    adapters = uneven_sources(seed)
    one, two = random_router(adapters, seed), Router.diagonal(adapters, (0.5, -1.0, 2.0))
    for a, b in ((one, two), (two, one), (two, two)):
        between = a.interpolated(b, share)
        for path in PATHS:
            wanted = (1 - share) * matrix_of(a, path) + share * matrix_of(b, path)
            np.testing.assert_allclose(matrix_of(between, path), wanted, rtol=1e-5, atol=1e-6)


@few
@given(seed=seeds, rank=st.integers(1, 6))
def test_factors_of_a_router_are_exact_and_compress_to_the_best_of_any_rank(seed: int, rank: int) -> None:
    pair = [make_adapter(seed, 3), make_adapter(seed + 1, 4, 2.0)]
    found = random_router(pair, seed)
    for path in PATHS:
        own = [adapter.modules[path] for adapter in pair]
        stacked = LowRank(torch.cat([f.up for f in own], 1)[None], torch.cat([f.scale * f.down for f in own])[None])
        exact = found.apply([path], stacked)
        wanted = dense(pair, path, matrix_of(found, path), (1.0, 1.0))
        assert exact.rank == 7
        assert relative_error(exact.dense()[0], wanted) <= 1e-5
        sigma = torch.linalg.svdvals(wanted)
        assert relative_error(compressed(exact, rank).dense()[0], wanted) == pytest.approx(
            float(sigma[rank:].norm() / sigma.norm()), abs=1e-5
        )


def test_a_recipe_bounds_the_rank_of_a_routed_merge() -> None:
    adapters = uneven_sources()
    found = random_router(adapters)
    whole, cut = (merge(adapters, routed(found, 1.0, 1.0, 1.0, **size), routers=[found]) for size in ({}, {"rank": 2}))
    assert [whole.modules[path].rank for path in PATHS] == [sum(found.ranks[path]) for path in PATHS]
    for path, factors in cut.modules.items():
        sigma = torch.linalg.svdvals(whole.modules[path].delta().flatten(1))
        error = relative_error(factors.delta(), whole.modules[path].delta())
        assert error == pytest.approx(float(sigma[2:].norm() / sigma.norm()), abs=1e-5)


def test_the_report_measures_against_the_routed_merge_and_the_sources_as_they_are() -> None:
    adapters = uneven_sources()
    found = random_router(adapters)
    recipe = routed(found, 0.5, 1.0, 1.0)
    report = merge_report(adapters, recipe, merge(adapters, recipe, routers=[found]), routers=[found])
    assert report.total.error < 1e-5
    norms = [sum(factors.norm() ** 2 for factors in adapter.modules.values()) ** 0.5 for adapter in adapters]
    assert report.total.source_norms == pytest.approx(norms, rel=1e-4)


def test_a_merger_goes_from_one_router_to_another_and_back() -> None:
    adapters = uneven_sources()
    one, two = random_router(adapters, 1), random_router(adapters, 2)
    merger = Merger(adapters, routers=[one, two])
    plain = Recipe(method="linear", weights=(1.0, 0.5, 0.1))
    for recipe in (routed(one, 1.0, 0.5, 0.1), plain, routed(two, 1.0, 0.5, 0.1), routed(one, 1.0, 0.0, 0.1), plain):
        assert_same_change(merger.merge(recipe), merge(adapters, recipe, routers=[one, two]), tolerance=0)


def test_the_hash_depends_on_values_and_sources_alone() -> None:
    pair = [make_adapter(1, 2, whole_numbers=True), make_adapter(2, 2, whole_numbers=True)]
    found = Router.diagonal(pair, (1.0, 0.5))
    assert found.hash == "97a253a37981c02120a5bd60455cf1dccf2c9fcace98947974bedfe86ae86e5c"
    turned = Router(found.sources, dict(reversed(list(found.ranks.items()))), dict(reversed(list(found.matrices.items()))))
    full = replace(found, matrices={path: torch.diag(matrix).double() for path, matrix in found.matrices.items()})
    assert turned.hash == full.hash == found.hash
    assert all(matrix.ndim == 1 for matrix in full.matrices.values())
    assert Router.diagonal(pair, (-0.0, 1.0)).hash == Router.diagonal(pair, (0.0, 1.0)).hash
    others = [Router.diagonal(pair, (1.0, 0.25)), Router.diagonal([pair[1], pair[0]], (1.0, 0.5)), random_router(pair)]
    assert len({found.hash, *(other.hash for other in others)}) == 4


def test_a_router_keeps_its_values_when_the_tensors_it_was_made_of_change() -> None:
    pair = uneven_sources()
    matrices = {path: torch.ones(sum(ranks)) for path, ranks in Router.identity(pair).ranks.items()}
    found = replace(Router.identity(pair), matrices=matrices)
    matrices[PATHS[0]].zero_()
    assert bool(found.matrices[PATHS[0]].all())


BAD = [
    (torch.ones(5, 4), rf"{PATHS[1]}: the router has the shape \(5, 4\); sources of ranks 3 \+ 2 \+ 4 need \(9, 9\) or \(9,\) — solve"),
    (torch.full((9,), torch.nan), rf"{PATHS[1]}: the router has values that are not finite — solve it again"),
    (torch.full((9, 9), torch.inf), rf"{PATHS[1]}: the router has values that are not finite"),
]


@pytest.mark.parametrize(("matrix", "message"), BAD)
def test_a_router_of_a_wrong_shape_or_value_is_refused_by_module(matrix: torch.Tensor, message: str) -> None:
    plain = Router.identity(uneven_sources())
    with pytest.raises(RecipeError, match=f"^{message}"):
        replace(plain, matrices={**plain.matrices, PATHS[1]: matrix})


def test_a_router_without_a_module_is_refused_by_its_name() -> None:
    plain = Router.identity(uneven_sources())
    with pytest.raises(RecipeError, match=f"^{PATHS[2]}: the router has no matrix of this module — solve the router again"):
        replace(plain, matrices={path: matrix for path, matrix in plain.matrices.items() if path != PATHS[2]})
    with pytest.raises(RecipeError, match=f"^{PATHS[2]}: the router has no ranks of this module"):
        replace(plain, ranks={path: ranks for path, ranks in plain.ranks.items() if path != PATHS[2]})
    with pytest.raises(RecipeError, match=f"^{min(PATHS)}: the router has 3 ranks for 2 sources"):
        replace(plain, sources=plain.sources[:2])


def test_weights_and_blocks_of_other_numbers_or_names_are_refused() -> None:
    adapters = uneven_sources()
    with pytest.raises(RecipeError, match=r"^router: weights: 2 given for 3 sources — give one per source"):
        Router.diagonal(adapters, (1.0, 0.5))
    with pytest.raises(RecipeError, match=r"^router: blocks: 1 given for 3 sources"):
        Router.diagonal(adapters, (1.0, 0.5, 1.0), ({"IN": 0.5},))
    with pytest.raises(RecipeError, match=r"^router: blocks\.0: unknown block 'DOUBLE_00'"):
        Router.diagonal(adapters, (1.0, 0.5, 1.0), ({"DOUBLE_00": 0.5}, {}, {}))
    with pytest.raises(RecipeError, match=r"^router: the routers were made for different sources — interpolate"):
        Router.identity(adapters).interpolated(Router.identity(adapters[:2]), 0.5)


def test_a_router_that_was_not_given_is_named() -> None:
    adapters = uneven_sources()
    found = Router.identity(adapters)
    message = rf"^recipe: calibration: the router {found.hash} was not given — load it with load_router, and give it with routers="
    for keep in (True, False):
        with pytest.raises(RecipeError, match=message):
            Merger(adapters, routers=[Router.zero(adapters)], keep=keep).merge(routed(found, 1.0, 1.0, 1.0))


def test_a_router_of_other_sources_or_ranks_is_refused() -> None:
    adapters = uneven_sources()
    found = Router.identity(adapters)
    turned = [adapters[1], adapters[0], adapters[2]]
    with pytest.raises(RecipeError, match=r"^recipe: calibration: the router was made for the sources .* in the same order"):
        merge(turned, routed(found, 1.0, 1.0, 1.0), routers=[found])
    wider = [replace(make_adapter(1, 5), sha256=adapters[0].sha256), *adapters[1:]]
    with pytest.raises(RecipeError, match=rf"^{min(PATHS)}: the router was made for \(3, 0, 4\); the sources have ranks \(5, 0, 4\)"):
        merge(wider, routed(found, 1.0, 1.0, 1.0), routers=[found])
    fewer = [adapters[0], adapters[1], replace(adapters[2], modules={p: adapters[2].modules[p] for p in PATHS[:2]})]
    with pytest.raises(RecipeError, match=rf"^{PATHS[2]}: the router was made for \(3, 2, 4\); the sources have ranks \(3, 2, 0\)"):
        merge(fewer, routed(found, 1.0, 1.0, 1.0), routers=[found])


def test_the_example_runs() -> None:
    found = doctest.testmod(router)
    assert found.attempted > 0
    assert found.failed == 0
