"""Selection finds the very entry that sorting finds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optimizer.merging.algebra.order_statistics import ranked

LARGE = 2**17


def sorted_down(magnitudes: Tensor, place: int) -> Tensor:
    return magnitudes.sort(dim=1, descending=True).values[:, place - 1, None, None]


@settings(max_examples=40, deadline=None)
@given(size=st.sampled_from([1, 2, 50, 2**16 - 1, 2**16, 2**16 + 1, LARGE]), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_any_place_of_any_size(size: int, share: float, seed: int) -> None:
    magnitudes = torch.randn(2, size, generator=torch.Generator().manual_seed(seed)).abs()
    place = max(1, round(share * size))
    assert torch.equal(ranked(magnitudes.clone(), place), sorted_down(magnitudes, place))


@pytest.mark.parametrize("place", [1, 2, LARGE // 3, LARGE // 2, LARGE - 1, LARGE])
@pytest.mark.parametrize("kind", ["zeros", "two values", "mostly zero", "ordered", "periodic"])
def test_distributions_that_mislead_a_sample(kind: str, place: int) -> None:
    ramp = torch.arange(LARGE, dtype=torch.float32)
    made = {
        "zeros": torch.zeros(LARGE),
        "two values": (ramp % 2) + 1,
        "mostly zero": torch.where(ramp % 1000 == 7, ramp, 0.0),
        "ordered": ramp,
        "periodic": (ramp % 17 == 0) * ramp + ramp % 17,  # the sample's step is 17: it sees one column only
    }
    magnitudes = made[kind][None]
    assert torch.equal(ranked(magnitudes.clone(), place), sorted_down(magnitudes, place))


def test_one_value_that_is_not_a_number_does_not_hide_the_others() -> None:
    magnitudes = torch.randn(1, LARGE, generator=torch.Generator().manual_seed(0)).abs()
    magnitudes[0, 5] = torch.nan
    assert 0 < float(ranked(magnitudes, LARGE // 2)) < 1
