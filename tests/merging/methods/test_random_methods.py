"""DELLA: how often entries survive, what the rest is multiplied by, and what its masks depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optimizer.adapters.adapter import Adapter
from optimizer.merging import METHODS, Recipe, merge
from optimizer.merging.methods.element_wise.della import keep_probabilities
from tests.merging.methods import references
from tests.merging.samples import NEUTRAL, PATHS, make_adapter, recipe

SEEDED = [m.name for m in METHODS.values() if m.seeded and not m.solved]
PATH = PATHS[1]
SOURCE = make_adapter(1, paths=[PATH])
CHANGE = SOURCE.modules[PATH].delta().double()


def survivors(density: float, epsilon: float, trials: int) -> Tensor:
    """How often each entry of ``CHANGE`` is kept, as a share."""
    kept = torch.zeros_like(CHANGE)
    for seed in range(trials):
        r = recipe({"method": "della_linear"}, 1.0, density=density, epsilon=epsilon, rescale="none", seed=seed)
        kept += merge([SOURCE], r).modules[PATH].delta() != 0
    return kept / trials


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 5),
    columns=st.integers(1, 9),
    density=st.sampled_from([0.05, 0.3, 0.5, 0.9, 1.0]),
    epsilon=st.sampled_from([0.0, 0.04, 0.2, 0.7]),
)
def test_keep_probabilities_are_linear_in_the_rank_within_each_row(
    seed: int, rows: int, columns: int, density: float, epsilon: float
) -> None:
    value = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed))
    found = keep_probabilities(value, density, epsilon)
    for matrix, chance in zip(value, found, strict=True):
        wanted = references.keep_probabilities(matrix.double().numpy(), density, epsilon)
        assert np.allclose(chance.numpy(), wanted, atol=1e-6)
        assert chance.mean(dim=1).numpy() == pytest.approx(density, abs=1e-6)
        assert 0 <= float(chance.min()) <= float(chance.max()) <= 1


def test_rows_beyond_the_first_thousand_are_ranked_too() -> None:
    value = torch.randn(1, 2500, 3, generator=torch.Generator().manual_seed(0))
    chance = keep_probabilities(value, 0.5, 0.2)[0]
    assert torch.equal(chance.argsort(dim=1), value[0].abs().argsort(dim=1))


def test_entries_survive_as_often_as_their_rank_says() -> None:
    trials, density, epsilon = 500, 0.5, 0.3
    chance = torch.from_numpy(references.keep_probabilities(CHANGE.numpy(), density, epsilon))
    z = (survivors(density, epsilon, trials) - chance) / (chance * (1 - chance) / trials).sqrt()
    assert float(z.abs().max()) < 5
    assert float(z.square().mean()) == pytest.approx(1, abs=0.3)


def test_della_keeps_the_expectation() -> None:
    trials = 500
    r = recipe({"method": "della_linear"}, 1.0, density=0.5, epsilon=0.2)
    total = torch.zeros_like(CHANGE)
    for seed in range(trials):
        total += merge([SOURCE], r.replaced(seed=seed)).modules[PATH].delta()
    chance = torch.from_numpy(references.keep_probabilities(CHANGE.numpy(), 0.5, 0.2))
    z = (total / trials - CHANGE) / (CHANGE.abs() * ((1 - chance) / chance / trials).sqrt())
    assert float(z.abs().max()) < 5
    assert float(z.square().mean()) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("rescale", ["inverse", "l1", "none"])
def test_survivors_are_rescaled_as_asked(rescale: str) -> None:
    merged = (
        merge([SOURCE], recipe({"method": "della_linear"}, 1.0, density=0.5, epsilon=0.2, rescale=rescale)).modules[PATH].delta().double()
    )
    kept = merged != 0
    factor = merged[kept] / CHANGE[kept]
    chance = torch.from_numpy(references.keep_probabilities(CHANGE.numpy(), 0.5, 0.2))
    if rescale == "l1":
        assert float(merged.abs().sum()) == pytest.approx(float(CHANGE.abs().sum()), rel=1e-5)
        assert float(factor.std()) < 1e-5
    else:
        torch.testing.assert_close(factor, 1 / chance[kept] if rescale == "inverse" else torch.ones_like(factor), rtol=1e-5, atol=1e-5)


def kept_of_first(sources: list[Adapter], method: str, path: str = PATHS[1], **more: object) -> Tensor:
    """What the first source puts into the merge of a linear method, as the merge minus that without it."""
    weights = (1.0, *[0.5] * (len(sources) - 1))
    setting = {"method": method, "density": 0.5, **more}
    whole = merge(sources, recipe(setting, *weights)).modules[path].delta()
    rest = merge(sources[1:], recipe(setting, *weights[1:])).modules[path].delta() if sources[1:] else torch.zeros_like(whole)
    return (whole - rest).abs() > 1e-4


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_a_sources_mask_is_the_same_beside_any_others_and_in_any_place(method: str) -> None:
    a, b, c = (make_adapter(i, 2 + i) for i in (1, 2, 3))
    alone = kept_of_first([a], method, seed=7)
    assert torch.equal(kept_of_first([a, b], method, seed=7), alone)
    assert torch.equal(kept_of_first([a, c, b], method, seed=7), alone)
    assert not torch.equal(kept_of_first([a], method, seed=8), alone)
    assert 0.3 < float(alone.float().mean()) < 0.7


@pytest.mark.parametrize("method", SEEDED)
def test_a_seed_gives_one_merge_and_another_seed_another(method: str) -> None:
    sources = [make_adapter(1), make_adapter(2, 4)]
    setting = {"method": method, **NEUTRAL[method], "density": 0.5}
    first, again, other = (merge(sources, recipe(setting, 0.6, 0.8, seed=seed)) for seed in (3, 3, 4))
    for path in PATHS:
        assert torch.equal(first.modules[path].delta(), again.modules[path].delta())
        assert not torch.equal(first.modules[path].delta(), other.modules[path].delta())


@pytest.mark.parametrize("method", ["della_linear", "della_ties"])
def test_a_window_of_zero_is_dare(method: str) -> None:
    sources = [make_adapter(1), make_adapter(2, 4)]
    dare = Recipe(method=method.replace("della", "dare"), weights=(0.6, -0.8), density=0.4, seed=3)
    for path, factors in merge(sources, dare.replaced(method=method)).modules.items():
        torch.testing.assert_close(factors.delta(), merge(sources, dare).modules[path].delta())
