"""Every trial has the interval of its score over the prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from objectives import resamples, score
from optimizer import Recipe, optimize
from optimizer.search.config import Config
from optimizer.search.evaluation.prompt_sets import search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.observer import Silent
from studies import trials_frame
from tests.files import LINEAR, kohya_file, random_parts

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    files = [str(kohya_file(tmp_path / f"{n}.safetensors", random_parts(LINEAR, rank=2 + i, seed=i)).path) for i, n in enumerate("ab")]
    return {"sources": files, "base": "fake:size=8", "budget": 2, "own": 4, "joint": 4, "confirm": 1, "out": tmp_path / "study"}


def test_it_holds_the_score_and_is_that_of_resampled_prompts(options: dict[str, Any]) -> None:
    config = Config.of(**options)
    session = prepare(config, Silent())
    evaluator = session.evaluator(search_prompts(config, session.sources), Silent())
    measured = evaluator.evaluate(Recipe(method="linear", weights=(0.7, 0.7)))
    assert measured.evaluation.interval is not None
    low, high = measured.evaluation.interval
    assert low <= measured.evaluation.score <= high
    scorer = evaluator.render_baselines().scorer
    drawn = resamples(evaluator.asked, count=1000, seed=0)
    one_by_one = torch.tensor([float(score(scorer.compare(measured.measurements, counts))) for counts in drawn])
    outside = (one_by_one < low).float().mean() + (one_by_one > high).float().mean()
    assert 0 < float(outside) < 0.05  # expanded percentiles lie farther out than 2.5 %


def test_it_is_in_the_table_and_empty_with_one_prompt_of_a_kind(options: dict[str, Any]) -> None:
    frame = trials_frame(optimize(**options).trials)
    assert bool((frame["score_low"] <= frame["score"]).all() and (frame["score"] <= frame["score_high"]).all())
    assert bool((frame["score_low"] < frame["score_high"]).any())
    few = trials_frame(optimize(**options | {"own": 1, "joint": 1, "out": options["out"].parent / "few"}).trials)
    assert bool(few["score_low"].isna().all() and few["score_high"].isna().all())
