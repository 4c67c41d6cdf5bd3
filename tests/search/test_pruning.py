"""A merge that lags behind the best one on half of the prompts is not drawn on the other half."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from objectives import JOINT
from optimizer import Recipe, Study, optimize
from optimizer.rendering import Prompt
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.fake import FakeRenderer
from optimizer.search.config import Config
from optimizer.search.evaluation.evaluator import Evaluator
from optimizer.search.evaluation.prompt_sets import search_prompts
from optimizer.search.evaluation.pruning import best_of, first_half
from optimizer.search.evaluation.session import prepare
from optimizer.search.labels import is_baseline
from optimizer.search.observer import Silent
from studies import trials_frame
from studies.records import Evaluation, TrialRecord
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import After, trials

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sources")
    files = [str(kohya_file(folder / f"{n}.safetensors", random_parts(LINEAR, rank=2 + i, seed=i)).path) for i, n in enumerate("ab")]
    return {"sources": files, "base": "fake:size=8", "budget": 16, "own": 4, "joint": 8, "confirm": 2, "methods": ("ties", "dare_linear")}


@pytest.fixture(scope="module")
def study(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Study:
    return optimize(**options, out=tmp_path_factory.mktemp("studies") / "study")


def evaluator(options: dict[str, Any], out: Path, **changes: Any) -> Evaluator:
    config = Config.of(**{**options, "out": out, **changes})
    session = prepare(config, Silent())
    return session.evaluator(search_prompts(config, session.sources), Silent())


def merges(study: Study, *, pruned: bool) -> list[TrialRecord]:
    return [r for r in study.trials if r.evaluation and r.evaluation.pruned == pruned]


def of(record: TrialRecord) -> Evaluation:
    assert record.evaluation is not None
    return record.evaluation


def test_a_study_prunes_merges_that_score_less_than_the_best_before_them(study: Study) -> None:
    assert len(merges(study, pruned=True)) >= 2
    assert len(merges(study, pruned=False)) >= 5
    for record in merges(study, pruned=True):
        before = best_of(study.trials[: record.number])
        assert before is not None
        assert of(record).score < before.score
    assert study.summary.best_number is not None
    assert not of(study.trials[study.summary.best_number]).pruned
    assert not any(r.evaluation and r.evaluation.pruned for r in study.trials if is_baseline(r.label))
    frame = trials_frame(study.trials)
    assert frame.pruned.sum() == len(merges(study, pruned=True))


def test_a_pruned_merge_is_drawn_on_half_of_the_prompts(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluator(options, tmp_path)
    best = found.evaluate(Recipe(method="linear", weights=(0.8, 0.8))).evaluation
    drawn: list[int] = []
    render = FakeRenderer.render

    def counted(renderer: FakeRenderer, prompts: Sequence[Prompt], candidate: Candidate | None = None, **more: Any) -> Tensor:
        drawn.append(len(prompts))
        return render(renderer, prompts, candidate, **more)

    monkeypatch.setattr(FakeRenderer, "render", counted)
    lost = Recipe(method="linear", weights=(0.1, 0.1))
    measured = found.evaluate(lost, best)
    assert measured.evaluation.pruned
    assert drawn == [8]
    assert len(measured.images) == 8
    drawn.clear()
    in_full = found.evaluate(lost)
    assert not in_full.evaluation.pruned
    assert drawn == [8, 8]
    assert in_full.evaluation.first_half == measured.evaluation.first_half


def test_what_is_drawn_in_two_halves_is_what_is_drawn_at_once(options: dict[str, Any], tmp_path: Path) -> None:
    recipe = Recipe(method="linear", weights=(0.7, 0.6))
    ticks: list[int] = []
    pruning, whole = evaluator(options, tmp_path), evaluator(options, tmp_path, no_pruning=True)
    pruning.tick = ticks.append
    halves, once = pruning.evaluate(recipe), whole.evaluate(recipe)
    torch.testing.assert_close(halves.images, once.images, rtol=0, atol=0)
    assert halves.evaluation.score == once.evaluation.score
    assert once.evaluation.first_half is None
    assert ticks[-1] == 16
    assert ticks[ticks.index(8, len(ticks) - 16) :] == sorted(ticks[ticks.index(8, len(ticks) - 16) :])


def test_a_study_can_do_without(options: dict[str, Any], study: Study, tmp_path: Path) -> None:
    first = merges(study, pruned=True)[0].number
    everything = optimize(**options, out=tmp_path, no_pruning=True)
    assert not merges(everything, pruned=True)
    assert [r.recipe for r in map(of, everything.trials[: first + 1])] == [r.recipe for r in map(of, study.trials[: first + 1])]


def test_an_interrupted_study_prunes_the_same_merges(options: dict[str, Any], study: Study, tmp_path: Path) -> None:
    optimize(**options, out=tmp_path, observer=After(9, rendering=True))
    resumed = optimize(**options, out=tmp_path)
    assert trials(resumed.trials) == trials(study.trials)
    assert [of(r).pruned for r in resumed.trials] == [of(r).pruned for r in study.trials]


def test_a_front_and_few_prompts_prune_nothing(options: dict[str, Any], tmp_path: Path) -> None:
    assert not evaluator(options, tmp_path, pareto=True).prunes
    few = evaluator(options, tmp_path, own=2, joint=2)
    worst = few.evaluate(Recipe(method="linear", weights=(0.1, 0.1)), few.evaluate(Recipe(method="linear", weights=(0.8, 0.8))).evaluation)
    assert not worst.evaluation.pruned
    assert first_half(torch.tensor([0, 0, 0, JOINT, JOINT])) is None


def test_evaluations_of_earlier_versions_are_read_and_prune_nothing(study: Study) -> None:
    old = of(study.trials[-1]).model_dump(exclude={"first_half", "pruned"})
    read = Evaluation.model_validate(old)
    assert (read.first_half, read.pruned) == (None, False)
    assert best_of([TrialRecord(number=0, evaluation=read)]) is None
