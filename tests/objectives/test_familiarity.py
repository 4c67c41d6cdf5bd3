"""Familiarity: the distance of a merge's pictures from everything that base and sources draw."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from objectives import EMBEDDINGS, JOINT, Baselines, FamiliarityObjective, Pictures, familiar_share, familiarity

ASKED, TEXTS = torch.tensor([0, 1, JOINT, JOINT]), torch.tensor([0, 1, 2, 2])
OBJECTIVE = FamiliarityObjective()


def vectors(seed: int, spread: float = 0.15) -> Tensor:
    """Embeddings of four pictures around one direction, unit vectors, (4, 12)."""
    noise = torch.randn(4, 12, generator=torch.Generator().manual_seed(seed))
    return F.normalize(torch.eye(12)[0] + spread * noise, dim=1)


def pictures(embeddings: Tensor) -> Pictures:
    return Pictures(torch.zeros(len(embeddings), 3, 8, 8, dtype=torch.uint8), {EMBEDDINGS: embeddings})


def baselines(texts: Tensor = TEXTS) -> Baselines:
    return Baselines(pictures(vectors(0)), (pictures(vectors(1)), pictures(vectors(2))), ASKED, texts)


def measured(embeddings: Tensor, found: Baselines) -> tuple[Tensor, float, float]:
    """Distance of each picture, and factor and mean distance of all."""
    reference = OBJECTIVE.reference(found)
    measurement = OBJECTIVE.measure(pictures(embeddings), reference)
    outcome = OBJECTIVE.compare(measurement, reference)
    assert outcome.factor is not None
    return measurement, float(outcome.factor), float(outcome.values["distance"])


def test_distances_are_those_to_the_nearest_reference_in_units_of_the_references_own() -> None:
    references, candidate = [v.double().numpy() for v in (vectors(0), vectors(1), vectors(2))], vectors(5, spread=1.0)
    known, texts = np.concatenate(references), np.tile(TEXTS.numpy(), 3)
    own = np.mean(
        [min(1 - v @ w for w, other in zip(known, texts, strict=True) if other != text) for v, text in zip(known, texts, strict=True)]
    )
    wanted = [min(1 - v @ w for w in known) / own for v in candidate.double().numpy()]
    distances, factor, mean = measured(candidate, baselines())
    np.testing.assert_allclose(distances, wanted, rtol=1e-6)
    assert mean == pytest.approx(np.mean(wanted))
    assert factor == pytest.approx(float(familiar_share(torch.tensor(wanted)).mean()))


def test_the_distance_is_that_to_the_nearest_of_some_references_over_all_ways_to_draw_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(familiarity, "AMONG", 3)
    known, texts, some = torch.cat([vectors(0), vectors(1)]).double().numpy(), np.tile(TEXTS.numpy(), 2), vectors(5, 1.0).double().numpy()

    def nearest(vector: np.ndarray, among: np.ndarray) -> float:
        return float(np.mean([min(1 - vector @ w for w in drawn) for drawn in combinations(among, 3)]))

    found = familiarity.nearest(torch.tensor(some), torch.tensor(known))
    np.testing.assert_allclose(found, [nearest(v, known) for v in some])
    own = np.mean([nearest(v, known[texts != text]) for v, text in zip(known, texts, strict=True)])
    assert familiarity.own_distance(torch.tensor(known), torch.tensor(texts)) == pytest.approx(own)


def test_the_distance_does_not_depend_on_the_number_of_references() -> None:
    """The nearest of 400 is much nearer than that of 40."""
    chance = torch.Generator().manual_seed(0)
    known, some = F.normalize(torch.eye(12)[0] + 0.15 * torch.randn(400, 12, generator=chance), dim=1), vectors(5, spread=0.3)
    drawn = [known[torch.randperm(400, generator=chance)[:40]] for _ in range(50)]
    few = sum(float(familiarity.nearest(some, references).mean()) for references in drawn) / 50
    assert float(familiarity.nearest(some, known).mean()) == pytest.approx(few, rel=0.03)
    unit = sum(familiarity.own_distance(references, torch.arange(40)) for references in drawn) / 50
    assert familiarity.own_distance(known, torch.arange(400)) == pytest.approx(unit, rel=0.03)


def test_what_base_and_sources_draw_counts_in_full() -> None:
    for embeddings in (vectors(0), vectors(2)):
        _, factor, distance = measured(embeddings, baselines())
        assert factor == 1
        assert distance == pytest.approx(0, abs=1e-6)


def test_what_lies_between_the_sources_counts_in_full() -> None:
    between = F.normalize(vectors(1) + vectors(2), dim=1)
    assert measured(between, baselines())[1] == 1


def test_every_picture_of_noise_costs_its_share() -> None:
    noise = torch.eye(12)[[7, 7, 7, 7]]
    factors = [measured(torch.cat([noise[:count], vectors(1)[count:]]), baselines())[1] for count in range(5)]
    assert factors == sorted(factors, reverse=True)
    assert factors[0] == 1
    assert factors[2] < 0.6
    assert factors[4] < 0.1


def test_prompts_of_one_text_are_compared_picture_by_picture() -> None:
    """Without another text, the nearest other picture gives the unit, which is not 0."""
    found = baselines(torch.zeros(4, dtype=torch.int64))
    assert OBJECTIVE.reference(found).unit > 0.01
    assert measured(torch.eye(12)[[7, 7, 7, 7]], found)[1] < 0.1


def test_references_that_are_all_alike_do_not_divide_by_zero() -> None:
    same = pictures(torch.eye(12)[[0, 0, 0, 0]])
    found = Baselines(None, (same, same), ASKED, TEXTS)
    assert measured(torch.eye(12)[[0, 0, 0, 0]], found)[1:] == (1.0, 0.0)
    assert measured(torch.eye(12)[[1, 1, 1, 1]], found)[1] < 1e-4


def test_the_bootstrap_resamples_it() -> None:
    reference = OBJECTIVE.reference(baselines())
    embeddings = torch.cat([vectors(1)[:2], torch.eye(12)[[7, 7]]])
    measurement = OBJECTIVE.measure(pictures(embeddings), reference)
    outcome = OBJECTIVE.compare(measurement, reference, torch.tensor([[1, 1, 1, 1], [2, 2, 0, 0], [0, 0, 1, 3]]))
    assert outcome.factor is not None
    whole, clean, broken = outcome.factor.tolist()
    assert clean == 1
    assert broken < whole < clean
