"""The score: what is kept of the sources, the weakest first, discounted for damage."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gmean

from objectives import JOINT, Effects, Preservation, preservation, score

SHARE, CLOSE = st.floats(0.001, 1), 1e-9


def sources(*kept: float) -> list[Preservation]:
    return [Preservation(share, share, 0.0) for share in kept]


@given(st.lists(SHARE, min_size=2, max_size=5))
def test_it_lies_between_the_weakest_source_and_the_geometric_mean(kept: list[float]) -> None:
    found, mean = score(sources(*kept), 0), gmean(kept)
    assert found == pytest.approx(math.sqrt(min(kept) * mean))
    assert min(kept) - CLOSE <= found <= mean + CLOSE


def test_equal_shares_are_the_score() -> None:
    assert score(sources(0.6, 0.6, 0.6), 0) == pytest.approx(0.6)


def test_a_lost_source_leaves_nothing() -> None:
    assert score(sources(1.0, 0.0, 1.0), 0) == 0


def test_the_weakest_cannot_be_sacrificed() -> None:
    assert score(sources(0.5, 0.5), 0) > score(sources(0.35, 1.0), 0)
    assert score(sources(0.5, 0.6), 0) > score(sources(0.45, 0.7), 0), "a mean would be the other way round"


def test_own_and_joint_prompts_count_alike() -> None:
    assert score([Preservation(1.0, 0.2, 0.0), Preservation(0.4, 0.8, 0.0)], 0) == pytest.approx(0.6)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=5), st.floats(0, 5), st.floats(0.01, 5))
def test_artifacts_lower_it_from_the_first_on(kept: list[float], some: float, more: float) -> None:
    assert 0 < score(sources(*kept), some + more) < score(sources(*kept), some) <= score(sources(*kept), 0)


def test_damage_of_level_8_halves_it() -> None:
    assert score(sources(0.8, 0.8), 8.0) == pytest.approx(0.4)


def test_a_sound_merge_that_keeps_nothing_is_not_better_than_a_damaged_one_that_keeps_something() -> None:
    assert score(sources(0.0, 0.9), 0.0) < score(sources(0.1, 0.1), 1.5)


def test_a_merge_that_changes_nothing_scores_0() -> None:
    base = torch.nn.functional.normalize(torch.randn(6, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    alone = torch.nn.functional.normalize(torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1)), dim=2)
    effects = Effects(base, alone, torch.tensor([0, 0, 1, 1, JOINT, JOINT]))
    assert score(preservation(base, effects), 0.0) == 0
