"""The paired bootstrap over prompts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from objectives import JOINT, Effects, Moments, interval, lead_bound, moments, resamples, statistics, without_each
from tests.objectives.candidates import asked_of, bootstrap, kept
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
        members = rows[asked_of(reduced).numpy()[rows] == group]
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
    found = interval(value, bootstrap(reduced, count=50, seed=seed).amin(dim=-1), ASKED)
    assert found.low <= found.value == value <= found.high


def test_the_interval_is_that_of_percentiles() -> None:
    samples, many = torch.linspace(0, 1, 1001, dtype=torch.float64), torch.zeros(100_000)
    found = interval(0.5, samples, many)
    assert (found.low, found.high) == pytest.approx((0.025, 0.975), abs=1e-4)
    assert (interval(0.5, samples, many, 0.8).low, interval(0.5, samples, many, 0.8).high) == pytest.approx((0.1, 0.9), abs=1e-4)
    assert interval(0.99, samples, many).high == 0.99
    assert interval(0.5, samples, torch.zeros(8)).low == pytest.approx(0.0057, abs=1e-4)


def test_more_prompts_narrow_the_interval() -> None:
    widths = []
    for times in (1, 6):
        reduced = candidate(effects_of(ASKED.repeat(times)), (0.6, 0.6))
        found = interval(float(kept(reduced)[0]), bootstrap(reduced, count=400)[:, 0], asked_of(reduced))
        widths.append(found.high - found.low)
    assert widths[1] < 0.7 * widths[0]


def test_the_lead_of_a_better_candidate_is_beyond_noise_and_that_of_a_worse_one_is_not() -> None:
    effects = effects_of()
    reduced = [candidate(effects, (gain, gain)) for gain in (0.3, 0.8)]
    (weak, strong), (low, high) = ([bootstrap(r, count=300)[:, 0] for r in reduced], [float(kept(r)[0]) for r in reduced])
    assert 0 < statistics.noise(high - low, strong - weak, ASKED) < high - low
    assert statistics.noise(low - high, weak - strong, ASKED) > low - high
    assert statistics.noise(0.0, weak - weak, ASKED) == 0


@pytest.mark.parametrize(("candidates", "wanted"), [(1, 1.645), (3, 2.128), (10, 2.576)])
def test_the_best_of_several_needs_a_greater_lead(candidates: int, wanted: float) -> None:
    """Of normal noise, the tail of probability 0.05 / m; of many prompts nothing is expanded."""
    found = statistics.noise(0.3, 0.3 + noise(40_000, seed=0), torch.zeros(10_000), candidates)
    assert found == pytest.approx(wanted, abs=0.05)


def test_few_prompts_take_percentiles_farther_out() -> None:
    """By the tables of the t and the normal distribution: 2.080 · √(8/7) = 2.223, 12.706 · √2 = 17.97."""
    three = torch.tensor([0, 1, JOINT]).repeat_interleave(8)
    assert statistics.expanded(0.025, three) == pytest.approx(0.0131, abs=1e-4)
    assert statistics.expanded(0.025, torch.zeros(2)) < 1e-60
    assert statistics.expanded(0.025, torch.tensor([0, 0, 1])) == 0, "one prompt says nothing about chance"
    assert statistics.noise(0.5, torch.full((10,), 0.5), torch.tensor([0, 0, 1])) == math.inf


def test_true_values_are_covered_and_equal_candidates_do_not_win() -> None:
    """Means of eight independent prompts a kind, three candidates beside a fourth one."""
    chance = torch.Generator().manual_seed(1)
    asked = torch.tensor([0, 1, JOINT]).repeat_interleave(8)
    covered, wins, rounds = 0, 0, 400
    for number in range(rounds):
        values = torch.randn(4, len(asked), generator=chance)
        samples = values @ resamples(asked, count=1000, seed=number).T / len(asked)
        found = interval(float(values[0].mean()), samples[0], asked)
        covered += found.low <= 0 <= found.high
        leads = (values[1:].mean(dim=1) - values[0].mean()).tolist()
        best = max(range(3), key=leads.__getitem__)
        wins += leads[best] > statistics.noise(leads[best], samples[1 + best] - samples[0], asked, 3)
    assert 0.93 <= covered / rounds <= 0.97
    assert 0.02 <= wins / rounds <= 0.06


def test_a_lead_is_below_its_bound_as_often_as_the_level_says() -> None:
    asked = torch.tensor([0] * 6 + [1] * 8)
    first, counts, below = asked == 0, without_each(14), 0
    for seed in range(1000):
        values = 0.3 + torch.where(first, 1.0, 2.0) * noise(14, seed=seed)
        means = [(counts[:, kind] @ values[kind]) / counts[:, kind].sum(dim=1) for kind in (first, ~first)]
        lead = float(values[first].mean() + values[~first].mean())
        below += lead_bound(lead, (means[0] + means[1]).double(), asked) > 0.6
    assert 0.92 < below / 1000 < 0.98
