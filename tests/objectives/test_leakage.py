"""Leakage: resampled as everything else, against least squares on repeated rows, and its factor on the score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from objectives import EMBEDDINGS, JOINT, Effects, Outcome, Pictures, SeparationObjective, leakage, leaks, resamples
from tests.objectives.reference import seen

ASKED = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, JOINT, JOINT])
OBJECTIVE = SeparationObjective()


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def effects_of(sources: int = 3) -> Effects:
    base = F.normalize(noise(len(ASKED), 24, seed=0), dim=1)
    return Effects(base, base + 0.1 * noise(sources, len(ASKED), 24, seed=1) + 0.1 * noise(sources, 1, 24, seed=2), ASKED)


def reference(merged: Tensor, effects: Effects, counts: Tensor, source: int) -> float:
    """Leakage of a source on one resample: least squares over the repeated rows of each other source."""
    u, asked = (effects.alone - effects.base).double().numpy(), effects.asked.numpy()
    own = u[source, asked == source]
    mean, size = own.mean(axis=0), (own**2).sum(axis=1).mean()
    parts, numbers = [], []
    for other in range(len(u)):
        if other == source:
            continue
        rows = np.repeat(np.arange(len(asked)), counts.int().numpy() * (asked == other))
        beyond = (merged - effects.alone[other]).double().numpy()[rows].ravel()
        unasked = min(1, (u[source, asked == other] ** 2).sum(axis=1).mean() / size)
        found = []
        for scale, direction in ((unasked, u[source, rows]), (1, np.broadcast_to(mean, (len(rows), len(mean))))):
            axes = np.stack([u[other, rows].ravel(), direction.ravel()], axis=1)
            ridge = np.sqrt(1e-4) * np.diag(np.linalg.norm(axes, axis=0))
            solved = np.linalg.lstsq(np.vstack([axes, ridge]), np.concatenate([beyond, [0, 0]]), rcond=None)[0]
            found.append(scale * solved[1])
        parts.append(max(found))
        numbers.append(len(rows))
    return float(seen(np.clip(np.average(parts, weights=numbers), 0, 1)))


def measured(merged: Tensor, effects: Effects) -> Outcome:
    pictures = Pictures(torch.zeros(len(merged), 3, 1, 1, dtype=torch.uint8), {EMBEDDINGS: merged})
    return OBJECTIVE.compare(OBJECTIVE.measure(pictures, effects), effects)


def test_the_bootstrap_equals_least_squares_on_repeated_rows() -> None:
    effects = effects_of()
    merged = effects.base + 0.6 * (effects.alone - effects.base).sum(dim=0) + 0.03 * noise(len(ASKED), 24, seed=3)
    counts = resamples(ASKED, count=20, seed=1)
    found, _ = leakage(leaks(merged, effects), counts)
    wanted = [[reference(merged, effects, row, source) for source in range(3)] for row in counts]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert found.std(dim=0).min() > 1e-3
    torch.testing.assert_close(leakage(leaks(merged, effects))[0], leakage(leaks(merged, effects), torch.ones(1, len(ASKED)))[0][0])


def test_pairs_say_where_a_source_leaks() -> None:
    """The third source is seen on the prompts of the first one, and nowhere else unasked."""
    effects = effects_of()
    clean = torch.stack([effects.alone[max(k, 0), i] for i, k in enumerate(ASKED.tolist())])
    leaking = clean + (effects.alone - effects.base)[2] * (ASKED == 0)[:, None]
    found = measured(leaking, effects).by_pair["leakage"]
    assert found.diagonal().isnan().all()
    assert float(found[2, 0]) > 0.9
    elsewhere = found.nan_to_num(nan=0.0)
    elsewhere[2, 0] = 0
    assert float(elsewhere.max()) < 0.15  # effects are not quite orthogonal


def test_the_source_that_leaks_most_discounts_the_score() -> None:
    effects = effects_of()
    u = effects.alone - effects.base
    clean = torch.stack([effects.alone[max(k, 0), i] for i, k in enumerate(ASKED.tolist())])
    leaking = clean + u[2] * (ASKED == 0)[:, None]
    for merged, wanted in ((clean, 0.0), (leaking, None)):
        outcome = measured(merged, effects)
        greatest = float(outcome.by_source["leakage"].max())
        assert outcome.factor is not None
        assert float(outcome.factor) == pytest.approx(1 / (1 + greatest))
        assert wanted is None or greatest == pytest.approx(wanted, abs=1e-9)
        assert wanted is not None or greatest > 0.05
        assert outcome.shares is None


def test_sources_that_do_not_count_or_cannot_leak_cost_nothing() -> None:
    effects = effects_of()
    everywhere = effects.base + (effects.alone - effects.base).sum(dim=0)
    plain = measured(everywhere, effects)
    found = measured(everywhere, replace(effects, always=frozenset({0}), left_out=frozenset({1})))
    assert plain.factor is not None
    assert found.factor is not None
    kept = found.by_source["leakage"].tolist()
    assert kept[0] == 0
    assert kept[1:] == plain.by_source["leakage"].tolist()[1:]
    assert float(found.factor) == pytest.approx(1 / (1 + kept[2]))
    alone = measured(everywhere, replace(effects, always=frozenset({0, 1, 2})))
    assert alone.factor is not None
    assert float(alone.factor) == 1
