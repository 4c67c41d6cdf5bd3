"""Which sources can be told from chance, and a score over those that can."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from objectives import (
    EMBEDDINGS,
    JOINT,
    Baselines,
    Effects,
    Outcome,
    Pictures,
    PreservationObjective,
    Scorer,
    counted_shares,
    score,
    standard_errors,
    unidentifiable,
)
from objectives.preservation.identifiable import ERRORS

ASKED = torch.tensor([0] * 4 + [1] * 4 + [JOINT] * 4)


def drawn(seed: int, size: float = 1.0, dimensions: int = 64) -> Tensor:
    values = torch.randn(len(ASKED), dimensions, generator=torch.Generator().manual_seed(seed))
    return values * (size / math.sqrt(dimensions))


def pictures(embeddings: Tensor) -> Pictures:
    return Pictures(torch.zeros(len(embeddings), 3, 8, 8, dtype=torch.uint8), {EMBEDDINGS: F.normalize(embeddings, dim=1)})


def baselines(size: float, *, constant: float = 0.0) -> Baselines:
    """A second source that moves pictures by this much, each in a direction of its own or all in one, beside one that moves them far."""
    mean = torch.zeros(64)
    mean[0] = 2.0
    base = mean + drawn(0)
    far, near = base + drawn(1), base + drawn(2, size) + constant * drawn(3)[:1]
    texts = torch.arange(len(ASKED))
    return Baselines(pictures(base), (pictures(far), pictures(near)), ASKED, texts)


@pytest.mark.parametrize(
    ("size", "constant", "left_out"),
    [(0.0, 0.0, {1}), (0.001, 0.0, {1}), (0.01, 0.0, {1}), (0.0, 0.01, {1}), (0.3, 0.0, set()), (1.0, 0.0, set()), (0.0, 0.3, set())],
)
def test_a_source_that_changes_too_little_is_not_identifiable(size: float, constant: float, left_out: set[int]) -> None:
    assert unidentifiable(baselines(size, constant=constant)) == left_out


def test_standard_errors_grow_with_the_effect_and_with_the_number_of_prompts() -> None:
    def errors(size: float, own: int) -> float:
        found = baselines(size)
        assert found.base
        asked = torch.tensor([1] * own + [0] * (len(ASKED) - own))
        alone = torch.stack([each.features[EMBEDDINGS] for each in found.alone])
        return standard_errors(Effects(found.base.features[EMBEDDINGS], alone, asked), 1)

    assert errors(0.02, 12) / errors(0.01, 12) == pytest.approx(2, rel=0.1)
    assert errors(0.02, 12) / errors(0.02, 3) == pytest.approx(2, rel=0.4)
    assert errors(0.0, 12) == 0


def test_without_anything_to_compare_with_only_the_size_counts() -> None:
    base = torch.tensor([[1.0, 0.0]])
    for moved, identifiable in ((torch.tensor([[0.8, 0.6]]), True), (base, False), (F.normalize(torch.tensor([[1.0, 1e-3]])), False)):
        found = Baselines(pictures(base), (pictures(moved),), torch.tensor([0]), torch.tensor([0]))
        assert unidentifiable(found) == (set() if identifiable else {0})
        assert standard_errors(Effects(base, moved[None], torch.tensor([0])), 0) in (0.0, float("inf"))


def test_a_source_that_no_prompt_asks_for_alone_is_not_judged() -> None:
    found = baselines(0.0)
    assert unidentifiable(replace(found, asked=torch.tensor([0] * 8 + [JOINT] * 4))) == set()
    bare = replace(found, base=Pictures(torch.zeros(12, 3, 8, 8, dtype=torch.uint8)))
    assert unidentifiable(bare) == set()


def test_the_score_is_over_the_sources_that_count() -> None:
    found = baselines(0.01)
    all_count = Scorer.from_baselines([PreservationObjective()], found)
    one_counts = Scorer.from_baselines([PreservationObjective()], replace(found, left_out=frozenset({1})))
    resamples = torch.ones(5, len(ASKED))
    for scorer, expected in ((all_count, 0.0), (one_counts, 1.0)):
        measured = scorer.measure(found.alone[0])
        assert float(score(scorer.compare(measured))) == pytest.approx(expected, abs=1e-3)
        assert score(scorer.compare(measured, resamples)).tolist() == pytest.approx([expected] * 5, abs=1e-3)
    shares = one_counts.compare(one_counts.measure(found.alone[0]))["preservation"]
    assert shares.shares is not None
    assert shares.shares.isnan().tolist() == [False, True]
    assert not shares.by_source["own"].isnan().any(), "what was measured stays in the columns own and joint"
    assert counted_shares({"preservation": shares}).shape == (1,)


def test_a_share_that_is_no_number_is_not_left_out_silently() -> None:
    assert score({"preservation": Outcome(shares=torch.tensor([0.5, torch.nan]))}).isnan()
    with pytest.raises(ValueError, match="no source counts"):
        score({"preservation": Outcome(shares=torch.tensor([torch.nan]), counted=torch.tensor([False]))})


def test_the_threshold_is_three_standard_errors() -> None:
    assert ERRORS == 3
