"""The score: what is kept of the sources, the weakest first, times the factors of the objectives."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gmean

from objectives import JOINT, Effects, Outcome, balance, combined_shares, score, soundness
from tests.objectives.candidates import preservation

SHARE, CLOSE = st.floats(0.001, 1), 1e-9


PRIORITY = st.floats(0.001, 1000)
SOURCES = st.integers(2, 5).flatmap(lambda count: st.lists(st.tuples(SHARE, PRIORITY), min_size=count, max_size=count))
"""The share and the priority of each source."""


def weighed(sources: list[tuple[float, float]]) -> float:
    kept, priorities = zip(*sources, strict=True)
    return float(balance(torch.tensor(kept, dtype=torch.float64), priorities))


def shares(*kept: float) -> Outcome:
    return Outcome(shares=torch.tensor(kept, dtype=torch.float64))


def scored(kept: list[float], artifacts: float) -> float:
    """The score of a merge that keeps these shares, at an artifact level."""
    damage = Outcome(factor=torch.tensor(soundness(artifacts), dtype=torch.float64))
    return float(score({"preservation": shares(*kept), "artifacts": damage}))


@given(st.lists(SHARE, min_size=2, max_size=5))
def test_it_lies_between_the_weakest_source_and_the_geometric_mean(kept: list[float]) -> None:
    found, mean = scored(kept, 0), gmean(kept)
    assert found == pytest.approx(math.sqrt(min(kept) * mean))
    assert min(kept) - CLOSE <= found <= mean + CLOSE


def test_equal_shares_are_the_score() -> None:
    assert scored([0.6, 0.6, 0.6], 0) == pytest.approx(0.6)


def test_a_lost_source_leaves_nothing() -> None:
    assert scored([1.0, 0.0, 1.0], 0) == 0


def test_the_weakest_cannot_be_sacrificed() -> None:
    assert scored([0.5, 0.5], 0) > scored([0.35, 1.0], 0)
    assert scored([0.5, 0.6], 0) > scored([0.45, 0.7], 0), "a mean would be the other way round"


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=5), st.floats(0, 5), st.floats(0.01, 5))
def test_artifacts_lower_it_from_the_first_on(kept: list[float], some: float, more: float) -> None:
    assert 0 < scored(kept, some + more) < scored(kept, some) <= scored(kept, 0)


def test_damage_of_level_8_halves_it() -> None:
    assert scored([0.8, 0.8], 8.0) == pytest.approx(0.4)


def test_a_sound_merge_that_keeps_nothing_is_not_better_than_a_damaged_one_that_keeps_something() -> None:
    assert scored([0.0, 0.9], 0.0) < scored([0.1, 0.1], 1.5)


def test_a_merge_that_changes_nothing_scores_0() -> None:
    base = torch.nn.functional.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    alone = torch.nn.functional.normalize(torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1)), dim=2)
    effects = Effects(base, alone, torch.tensor([0, 0, 1, 1, JOINT, JOINT]))
    assert scored([kept.mean for kept in preservation(base, effects)], 0.0) == 0


@given(st.lists(st.tuples(SHARE, SHARE, SHARE), min_size=2, max_size=5), st.lists(st.floats(0.01, 1), max_size=4))
def test_several_objectives(kept: list[tuple[float, float, float]], factors: list[float]) -> None:
    found = {str(i): shares(*each) for i, each in enumerate(zip(*kept, strict=True))}
    found |= {f"factor {i}": Outcome(factor=torch.tensor(factor, dtype=torch.float64)) for i, factor in enumerate(factors)}
    means = [gmean(each) for each in kept]
    assert combined_shares(found).tolist() == pytest.approx(means)
    assert float(score(found)) == pytest.approx(math.sqrt(min(means) * gmean(means)) * math.prod(factors))


def test_resamples_are_scored_one_by_one() -> None:
    kept, factor = torch.rand(5, 3, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    fixed = Outcome(factor=torch.tensor(0.5, dtype=torch.float64))
    found = score({"kept": Outcome(shares=kept), "lone": Outcome(shares=kept[0]), "each": Outcome(factor=factor), "all": fixed})
    wanted = [
        float(score({"kept": Outcome(shares=k), "lone": Outcome(shares=kept[0]), "each": Outcome(factor=f)})) / 2
        for k, f in zip(kept, factor, strict=True)
    ]
    assert found.tolist() == pytest.approx(wanted)


def test_what_is_no_score() -> None:
    with pytest.raises(ValueError, match=r"^no objective measures what is kept of each source: artifacts$"):
        score({"artifacts": Outcome(factor=torch.tensor(1.0))})
    with pytest.raises(ValueError, match=r"^no objective measures what is kept of each source: the table is empty$"):
        score({})
    for factor in (0.0, 1.5):
        with pytest.raises(ValueError, match=rf"^the objective bonus has a factor outside \(0, 1\]: \[1.0, {factor}\]$"):
            score({"kept": shares(0.5), "bonus": Outcome(factor=torch.tensor([1.0, factor]))})
    assert math.isnan(scored([0.5, math.nan], 0.0))


@given(SOURCES)
def test_priorities_are_exponents_of_the_minimum_and_of_the_mean(sources: list[tuple[float, float]]) -> None:
    highest, total = max(priority for _, priority in sources), sum(priority for _, priority in sources)
    weakest = min(math.exp(priority / highest * math.log(kept)) for kept, priority in sources)
    mean = math.exp(sum(priority * math.log(kept) for kept, priority in sources) / total)
    assert weighed(sources) == pytest.approx(math.sqrt(weakest * mean))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5), PRIORITY)
def test_equal_priorities_change_no_bit(kept: list[float], priority: float) -> None:
    tensor = torch.tensor([kept, kept[::-1]], dtype=torch.float64)
    assert torch.equal(balance(tensor, [priority] * len(kept)), balance(tensor))
    outcomes = {"kept": Outcome(shares=tensor), "factor": Outcome(factor=torch.tensor(0.7, dtype=torch.float64))}
    assert torch.equal(score(outcomes, [priority] * len(kept)), score(outcomes))


@given(SOURCES, st.randoms(use_true_random=False), st.floats(0.1, 10))
def test_neither_order_nor_unit_of_priorities_matters(sources: list[tuple[float, float]], random: Random, unit: float) -> None:
    mixed = random.sample(sources, len(sources))
    assert weighed(mixed) == pytest.approx(weighed(sources))
    assert weighed([(kept, priority * unit) for kept, priority in sources]) == pytest.approx(weighed(sources))


@given(SOURCES, st.data())
def test_more_of_a_source_is_never_worse_and_a_lost_one_leaves_nothing(sources: list[tuple[float, float]], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(sources) - 1))
    kept, priority = sources[which]
    more = [*sources[:which], (data.draw(st.floats(kept, 1)), priority), *sources[which + 1 :]]
    assert 0 < weighed(sources) <= weighed(more) * (1 + CLOSE)
    assert weighed([*sources[:which], (0.0, priority), *sources[which + 1 :]]) == 0


@given(SOURCES, st.data())
def test_a_higher_priority_of_a_source_makes_none_of_its_losses_cheaper(sources: list[tuple[float, float]], data: st.DataObject) -> None:
    """Neither by itself, nor against a gain of another source."""
    (first, low), (second, other), *rest = sources
    lost, gained, high = data.draw(st.floats(0.001, first)), data.draw(st.floats(second, 1)), data.draw(st.floats(low, 1000))

    def ratio(priority: float, other_share: float) -> float:
        return weighed([(lost, priority), (other_share, other), *rest]) / weighed([(first, priority), (second, other), *rest])

    assert ratio(high, second) <= ratio(low, second) * (1 + CLOSE)
    assert ratio(high, gained) <= ratio(low, gained) * (1 + CLOSE)


def test_a_priority_decides_which_of_two_merges_is_better() -> None:
    hero, style = [0.9, 0.6], [0.6, 0.9]
    assert balance(torch.tensor(hero), (2, 1)) > balance(torch.tensor(style), (2, 1))
    assert balance(torch.tensor(hero), (1, 2)) < balance(torch.tensor(style), (1, 2))


@pytest.mark.parametrize("priorities", [(1.0,), (1.0, 2.0, 3.0), (1.0, 0.0), (-1.0, 1.0), (math.nan, 1.0), (math.inf, math.inf)])
def test_what_are_no_priorities(priorities: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"^2 shares need as many finite priorities above 0, not \("):
        balance(torch.tensor([0.5, 0.5]), priorities)
