"""Fused projections: taken apart and put together again, against dense matrices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.adapters import Factors
from optimizer.adapters.fusing import fuse, split_fused

PATHS, ROWS, WIDTH = ("q", "k", "v", "mlp"), (1, 1, 1, 4), 6


def factors(seed: int, height: int, rank: int, alpha: float, dtype: torch.dtype = torch.float32) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(height, rank, generator=generator), torch.randn(rank, WIDTH, generator=generator)
    return Factors(up.to(dtype), down.to(dtype), alpha, (height, WIDTH))


@given(seed=st.integers(0, 999), rank=st.integers(1, 5), alpha=st.sampled_from([0.5, 1.0, 3.0]))
def test_one_weight_of_a_file_comes_back_bit_by_bit(seed: int, rank: int, alpha: float) -> None:
    whole = factors(seed, 7 * WIDTH, rank, alpha, torch.float16)
    apart = split_fused(whole, PATHS, ROWS, False)
    assert torch.equal(torch.cat([apart[path].delta() for path in PATHS]), whole.delta())
    again = fuse(apart, PATHS, ROWS, False)
    assert (again.alpha, again.shape) == (whole.alpha, whole.shape)
    assert torch.equal(again.up, whole.up)
    assert torch.equal(again.down, whole.down)


@settings(deadline=None)
@given(
    seed=st.integers(0, 999),
    present=st.sets(st.sampled_from(PATHS), min_size=1),
    ranks=st.lists(st.integers(1, 4), min_size=4, max_size=4),
    alphas=st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=4, max_size=4),
)
def test_modules_of_their_own_come_back_with_their_ranks(seed: int, present: set[str], ranks: list[int], alphas: list[float]) -> None:
    modules = {
        path: factors(seed + i, ROWS[i] * WIDTH, ranks[i], alphas[i], torch.float16) for i, path in enumerate(PATHS) if path in present
    }
    fused = fuse(modules, PATHS, ROWS, False)
    dense = [modules[path].delta() if path in modules else torch.zeros(n * WIDTH, WIDTH) for path, n in zip(PATHS, ROWS, strict=True)]
    torch.testing.assert_close(fused.delta(), torch.cat(dense), rtol=1e-5, atol=1e-5)
    apart = split_fused(fused, PATHS, ROWS, False)
    assert set(apart) == present
    for path, found in apart.items():
        assert found.rank == modules[path].rank
        torch.testing.assert_close(found.delta(), modules[path].delta(), rtol=1e-5, atol=1e-5)


def test_a_weight_that_changes_nothing_keeps_its_modules() -> None:
    whole = replace(factors(0, 3 * WIDTH, 2, 1.0), up=torch.zeros(3 * WIDTH, 2))
    apart = split_fused(whole, PATHS[:3], ROWS[:3], False)
    assert {path: f.rank for path, f in apart.items()} == {"q": 2, "k": 2, "v": 2}
    assert not any(f.delta().any() for f in apart.values())


def test_two_halves_change_places_and_others_do_not() -> None:
    two, six = factors(0, 2 * WIDTH, 2, 1.0), factors(1, 6 * WIDTH, 2, 1.0)
    swapped = split_fused(two, ("n",), (), True)["n"]
    assert torch.equal(swapped.delta(), two.delta().roll(WIDTH, 0))
    assert torch.equal(fuse({"n": swapped}, ("n",), (), True).delta(), two.delta())
    assert torch.equal(split_fused(six, ("n",), (), True)["n"].delta(), six.delta())


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"has 17 rows and 6 columns; 3 projections need 3 · 6 rows"):
        split_fused(factors(0, 17, 2, 1.0), PATHS[:3], ROWS[:3], False)
    modules = {"q": factors(0, WIDTH, 1, 1.0), "k": factors(0, 5, 1, 1.0)}
    with pytest.raises(ValueError, match=r"k has shape \(5, 6\); beside its neighbours it needs \(6, 6\)"):
        fuse(modules, PATHS[:3], ROWS[:3], False)
