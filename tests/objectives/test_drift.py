"""Drift: what a merge changes where nothing is asked for, relative to what sources change where they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from objectives import JOINT, Effects, drift


def unit(rows: int, seed: int) -> Tensor:
    return normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


ASKED = torch.tensor([0, 0, 1, 1, JOINT])
BASE, ALONE = unit(5, 0), torch.stack([unit(5, 1), unit(5, 2)])
EFFECTS = Effects(BASE, ALONE, ASKED)


def test_no_change_is_0() -> None:
    assert drift(BASE, BASE, EFFECTS) == 0


def test_as_much_as_a_source_changes_is_1() -> None:
    one = Effects(BASE, torch.stack([ALONE[0], ALONE[0]]), torch.tensor([0, 0, 0, 0, 0]))
    assert drift(ALONE[0], BASE, one) == pytest.approx(1)


def test_the_scale_is_the_mean_over_the_sources_that_count() -> None:
    squares = [float((ALONE[k] - BASE)[k == ASKED].square().sum(dim=1).mean()) for k in (0, 1)]
    merged = unit(5, 3)
    moved = float((merged - BASE).square().sum(dim=1).mean())
    assert drift(merged, BASE, EFFECTS) == pytest.approx(moved / (sum(squares) / 2), rel=1e-5)
    alone = Effects(BASE, ALONE, ASKED, left_out=frozenset({1}))
    assert drift(merged, BASE, alone) == pytest.approx(moved / squares[0], rel=1e-5)


def test_there_is_none_where_no_source_changes_anything() -> None:
    assert drift(unit(5, 3), BASE, Effects(BASE, torch.stack([BASE, BASE]), ASKED)) is None
    assert drift(unit(5, 3), BASE, Effects(BASE, ALONE, torch.full((5,), JOINT))) is None
