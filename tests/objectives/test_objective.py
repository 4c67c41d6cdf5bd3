"""The seam: baselines, scorer, and an objective of another kind than those of the table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from objectives import (
    EMBEDDINGS,
    JOINT,
    Baselines,
    Objective,
    Outcome,
    Pictures,
    Scorer,
    artifact_level,
    check_objectives,
    envelope,
    needed_features,
    resamples,
    score,
    soundness,
    weighted_mean,
)
from objectives.table import OBJECTIVES
from tests.objectives.candidates import preservation

ASKED, TEXTS = torch.tensor([0, 0, 1, 1, JOINT, JOINT]), torch.tensor([0, 1, 2, 2, 3, 4])


def pictures(seed: int, count: int = 6) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return Pictures(images, {EMBEDDINGS: torch.nn.functional.normalize(torch.randn(count, 8, generator=generator), dim=1)})


def baselines() -> Baselines:
    return Baselines(pictures(0), (pictures(1), pictures(2)), ASKED, TEXTS)


class Remoteness(Objective[tuple[Tensor, Tensor], Tensor]):
    """Mean distance of the candidate's embeddings to the nearest baseline picture, in units of what the baselines show among themselves."""

    name, version, needs = "remoteness", 1, frozenset({EMBEDDINGS})

    def reference(self, baselines: Baselines) -> tuple[Tensor, Tensor]:
        known = torch.cat([p.features[EMBEDDINGS] for p in baselines.all])
        texts = baselines.texts.repeat(len(baselines.all))
        apart = torch.cdist(known, known).masked_fill(texts[:, None] == texts[None, :], torch.inf)
        return known, apart.amin(dim=1).mean()

    def measure(self, pictures: Pictures, reference: tuple[Tensor, Tensor]) -> Tensor:
        return torch.cdist(pictures.features[EMBEDDINGS], reference[0]).amin(dim=1)

    def compare(self, measurement: Tensor, reference: tuple[Tensor, Tensor], counts: Tensor | None = None) -> Outcome:
        ratio = weighted_mean(measurement, counts) / reference[1]
        return Outcome(factor=1 / ratio.clamp(min=1), values={"ratio": ratio})


def test_the_table_scores_as_its_parts_do() -> None:
    """Every number of the standard table, from the functions that the objectives are made of."""
    scorer = Scorer.from_baselines(OBJECTIVES, baselines())
    candidate = pictures(3)
    blend = torch.stack([p.features[EMBEDDINGS] for p in baselines().all]).mean(dim=0)
    candidate = Pictures(candidate.images, {EMBEDDINGS: blend})
    outcomes = scorer.compare(scorer.measure(candidate))
    effects, level = scorer.references[0], artifact_level(candidate.images, envelope([p.images for p in baselines().all]))[0]
    found = preservation(blend, effects)
    kept, leaked = [each.mean for each in found], max(each.leakage for each in found)
    assert min(kept) > 0
    assert level > 0
    assert leaked > 0
    weakest, geometric = min(kept), (kept[0] * kept[1]) ** 0.5
    assert float(score(outcomes)) == pytest.approx((weakest * geometric) ** 0.5 * soundness(level) / (1 + leaked))
    assert float(outcomes["artifacts"].values["level"]) == level
    statistics = {"variation", "detail", "sharpness", "contrast", "saturation", "clipped", "entropy"}
    assert set(outcomes["artifacts"].values) == statistics | {"level", "flat"}


def test_another_objective_is_resampled_with_the_others() -> None:
    found = baselines()
    scorer = Scorer.from_baselines((*OBJECTIVES, Remoteness()), found)
    counts = resamples(ASKED, count=50, seed=1)
    measured = scorer.measure(pictures(7))
    remoteness = scorer.compare(measured, counts)["remoteness"]
    known = np.concatenate([p.features[EMBEDDINGS].numpy() for p in found.all])
    texts = np.tile(TEXTS.numpy(), 3)

    def nearest(vector: np.ndarray, among: np.ndarray) -> float:
        return float(min(np.linalg.norm(vector - other) for other in among))

    own = np.mean([nearest(vector, known[texts != text]) for vector, text in zip(known, texts, strict=True)])
    apart = np.array([nearest(vector, known) for vector in pictures(7).features[EMBEDDINGS].numpy()])
    wanted = [np.repeat(apart, row).mean() / own for row in counts.int().numpy()]
    np.testing.assert_allclose(remoteness.values["ratio"], wanted, rtol=1e-4)
    plain = Scorer.from_baselines(OBJECTIVES, found)
    expected = score(plain.compare(plain.measure(pictures(7)), counts)) / torch.tensor(wanted).clamp(min=1)
    torch.testing.assert_close(score(scorer.compare(measured, counts)), expected, rtol=1e-4, atol=0)
    assert len(set(remoteness.values["ratio"].tolist())) > 10


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.data())
def test_the_weighted_mean_is_that_of_repeated_values(values: list[float], data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.lists(st.integers(1, 3), min_size=len(values), max_size=len(values)), min_size=1, max_size=3))
    found = weighted_mean(torch.tensor(values, dtype=torch.float64), torch.tensor(counts))
    np.testing.assert_allclose(found, [np.repeat(values, row).mean() for row in counts], atol=1e-12)
    assert float(weighted_mean(torch.tensor(values, dtype=torch.float64))) == pytest.approx(np.mean(values))


def test_baselines_of_different_prompts_are_refused() -> None:
    message = r"^the numbers of prompts do not match: asked 6, texts 5, source 0 6, source 1 4, base 6$"
    with pytest.raises(ValueError, match=message):
        Baselines(pictures(0), (pictures(1), pictures(2, 4)), ASKED, TEXTS[:5])


def test_a_table_that_cannot_be_used_is_refused() -> None:
    check_objectives((*OBJECTIVES, Remoteness()), [EMBEDDINGS])
    assert needed_features((*OBJECTIVES, Remoteness())) == {EMBEDDINGS}
    with pytest.raises(ValueError, match=r"^two objectives have the name remoteness: rename one of them$"):
        check_objectives([Remoteness(), Remoteness()], [EMBEDDINGS])
    with pytest.raises(ValueError, match=r"^the objective faces needs landmarks, which cannot be computed: choose from embeddings$"):
        check_objectives([type("Faces", (Remoteness,), {"name": "faces", "needs": frozenset({"landmarks"})})()], [EMBEDDINGS])
    with pytest.raises(ValueError, match=r"^'new:ness' does not name an objective: use letters, digits, _ and -$"):
        check_objectives([type("Newness", (Remoteness,), {"name": "new:ness"})()], [EMBEDDINGS])
