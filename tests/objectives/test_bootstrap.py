"""The paired bootstrap over prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from objectives import JOINT, Effects, Moments, interval, moments, probability_better, resamples
from tests.objectives.candidates import bootstrap, kept
from tests.objectives.reference import share

ASKED = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, JOINT, JOINT, JOINT, JOINT, JOINT])


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def effects_of(asked: Tensor = ASKED) -> Effects:
    base = noise(len(asked), 12, seed=0)
    return Effects(base, base + 0.5 * noise(2, len(asked), 12, seed=1), asked)


def candidate(effects: Effects, gains: tuple[float, float], seed: int = 2) -> Moments:
    u = effects.alone - effects.base
    merged = effects.base + gains[0] * u[0] + gains[1] * u[1] + 0.3 * noise(*effects.base.shape, seed=seed)
    return moments(merged, effects)


def reference(reduced: Moments, effects: Effects, merged: Tensor, counts: Tensor) -> list[float]:
    """What is kept of every source on one resample, from the repeated rows."""
    rows = np.repeat(np.arange(len(counts)), counts.int().tolist())
    u, v = (effects.alone - effects.base).double().numpy(), (merged - effects.base).double().numpy()

    def solved(group: int) -> np.ndarray:
        members = rows[reduced.asked.numpy()[rows] == group]
        return share(u[:, members], v[members])

    joint = solved(JOINT)
    return [(solved(k)[k] + joint[k]) / 2 for k in range(len(u))]


@given(st.integers(0, 2**31), st.permutations(ASKED.tolist()))
def test_every_kind_is_resampled_within_itself(seed: int, asked: list[int]) -> None:
    kinds = torch.tensor(asked)
    drawn = resamples(kinds, count=20, seed=seed)
    assert drawn.shape == (20, 13)
    for kind in (0, 1, JOINT):
        members = kinds == kind
        assert (drawn[:, members].sum(dim=1) == members.sum()).all()
    assert torch.equal(drawn, resamples(kinds, count=20, seed=seed))


def test_resamples_differ_and_every_prompt_is_drawn_as_often() -> None:
    drawn = resamples(ASKED, count=4000, seed=0)
    assert len(torch.unique(drawn, dim=0)) > 1000
    assert not torch.equal(drawn, resamples(ASKED, count=4000, seed=1))
    torch.testing.assert_close(drawn.mean(dim=0), torch.ones(13), rtol=0, atol=0.08)


def test_the_bootstrap_equals_the_reference_on_repeated_rows() -> None:
    effects = effects_of()
    merged = effects.base + 0.4 * (effects.alone - effects.base).sum(dim=0) + 0.2 * noise(13, 12, seed=5)
    reduced = moments(merged, effects)
    samples = bootstrap(reduced, count=40, seed=3)
    wanted = [reference(reduced, effects, merged, counts) for counts in resamples(ASKED, count=40, seed=3)]
    np.testing.assert_allclose(samples, wanted, atol=2e-3)
    assert (samples.std(dim=0) > 0.005).all()


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000))
def test_the_interval_holds_the_value(first: float, second: float, seed: int) -> None:
    reduced = candidate(effects_of(), (first, second), seed)
    value = float(kept(reduced).amin())
    found = interval(value, bootstrap(reduced, count=50, seed=seed).amin(dim=-1))
    assert found.low <= found.value == value <= found.high


def test_the_interval_is_that_of_percentiles() -> None:
    samples = torch.linspace(0, 1, 1001, dtype=torch.float64)
    found = interval(0.5, samples)
    assert (found.low, found.high) == pytest.approx((0.025, 0.975))
    assert (interval(0.5, samples, 0.8).low, interval(0.5, samples, 0.8).high) == pytest.approx((0.1, 0.9))
    assert interval(0.99, samples).high == 0.99


def test_more_prompts_narrow_the_interval() -> None:
    widths = []
    for times in (1, 6):
        reduced = candidate(effects_of(ASKED.repeat(times)), (0.6, 0.6))
        found = interval(float(kept(reduced)[0]), bootstrap(reduced, count=400)[:, 0])
        widths.append(found.high - found.low)
    assert widths[1] < 0.7 * widths[0]


def test_the_probability_of_being_better() -> None:
    effects = effects_of()
    weak, strong = (bootstrap(candidate(effects, (gain, gain)), count=300)[:, 0] for gain in (0.3, 0.8))
    assert probability_better(strong, weak) > 0.99
    assert probability_better(weak, strong) < 0.01
    assert probability_better(weak, weak) == 0, "a tie is no win"
    assert probability_better(torch.tensor([1.0, 0, 1, 1]), torch.tensor([0.0, 1, 1, 0])) == 0.5
