"""Searches over merges that are solved on the base model: each is solved once, lies in the study, and is replayed from its recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from optimizer import Study, load_adapter, optimize
from optimizer.calibration.prompts import calibration_prompts
from optimizer.calibration.solve import Progress, Solution, Solver
from optimizer.cli.main import execute
from optimizer.cli.tables.verdict import print_verdict
from optimizer.errors import TrialError
from optimizer.merging import METHODS, Recipe, Router, correctable, with_correction
from optimizer.merging.methods.solved import CHECKPOINT, CORRECTION, TRAIN_STEPS, TRUNCATION
from optimizer.rendering import PromptSet, Renderer, Subject, Vocabulary
from optimizer.search.config import Config
from optimizer.search.disk_space import need
from optimizer.search.evaluation import comparison
from optimizer.search.evaluation.prompt_sets import search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.labels import COMPOSITION
from optimizer.search.observer import Silent
from studies import StudyDirectory, load_summary
from tests.studio import Studio


class Noting(Silent):
    """Keeps the notes of a run."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training in five steps, on one prompt of each kind."""
    parameters = (replace(TRAIN_STEPS, start=5), CHECKPOINT, CORRECTION, TRUNCATION)
    monkeypatch.setitem(METHODS, "distill", replace(METHODS["distill"], parameters=parameters))

    def few(subjects: Sequence[Subject], words: Vocabulary, recipe: Recipe) -> PromptSet:
        return calibration_prompts(subjects, words, recipe.seed, own=1, joint=1)

    monkeypatch.setattr("optimizer.search.evaluation.study_routers.prompts_to_solve_on", few)


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that are solved from now on, in order; the list grows."""
    found: list[str] = []
    solve = Solver.solve

    def watched(solver: Solver, recipe: Recipe, checkpoints: Sequence[int] = (), progress: Progress = lambda *_: None) -> Solution:
        found.append(recipe.method)
        return solve(solver, recipe, checkpoints, progress)

    monkeypatch.setattr(Solver, "solve", watched)
    return found


@pytest.fixture
def solved_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The confirmation decides for the first merge that was solved."""

    def decide(merges: Sequence[comparison.Contender], _: Tensor) -> tuple[comparison.Contender, comparison.Contender]:
        winner = next(contender for contender in merges if contender.recipe and contender.recipe.calibration)
        return winner, winner

    monkeypatch.setattr(comparison, "decide", decide)


def options(studio: Studio, out: Path, **changes: Any) -> dict[str, Any]:
    return studio.options(out=out, budget=16, methods=("distill", "ssr"), finalists=18, **changes)


def recipes(study: Study) -> dict[str, Recipe]:
    """Recipes of the study's trials by label, those of the sampler by number."""
    return {t.label or str(t.number): Recipe.from_data(t.evaluation.recipe) for t in study.trials if t.evaluation}


def test_each_method_is_solved_once_and_the_winner_replays_without_the_base(
    studio: Studio, tmp_path: Path, solved: list[str], solved_wins: None
) -> None:
    out = tmp_path / "study"
    study = optimize(**options(studio, out))
    assert [t.error for t in study.trials if t.error] == []
    assert solved == ["distill", "ssr"]
    found = recipes(study)
    assert found["distill default"].calibration != found["ssr default"].calibration
    assert (found["distill default"].correction, found["ssr default"].correction) == (CORRECTION.start, 0)
    proposed = [recipe for label, recipe in found.items() if label.isdecimal() and recipe.method_record.solved]
    assert proposed
    hashes = {path.stem for path in (out / "routers").glob("*.safetensors")}
    assert {recipe.calibration for recipe in found.values() if recipe.calibration} <= hashes
    assert study.best is not None
    again = tmp_path / "again.safetensors"
    assert execute(["merge", str(out / "best" / "recipe.yaml"), "--sources", *map(str, studio.sources[:2]), "--out", str(again)]) == 0
    written, replayed = load_file(study.best), load_file(again)
    assert written.keys() == replayed.keys()
    assert all(torch.equal(tensor, replayed[name]) for name, tensor in written.items())


def test_the_time_of_solving_is_time_of_the_trial_that_needed_it(studio: Studio, tmp_path: Path) -> None:
    study = optimize(**options(studio, tmp_path / "study"), observer=(observer := Noting()))
    took = {t.label: t.evaluation.metrics["seconds_solve"] for t in study.trials if t.evaluation}
    assert {label for label, seconds in took.items() if seconds} == {"distill default", "ssr default"}
    for evaluation in (t.evaluation for t in study.trials if t.evaluation):
        stages = [evaluation.metrics[f"seconds_{stage}"] for stage in ("solve", "merge", "render", "score")]
        assert evaluation.seconds == pytest.approx(sum(stages), abs=0.2)
    frame = pd.read_csv(tmp_path / "study" / "trials.csv", keep_default_na=False)
    assert sorted(frame["seconds_solve"])[-2:] == sorted(seconds for seconds in took.values() if seconds)
    told = [note for note in observer.notes if note.startswith("solving ")]
    assert [note.partition(" holds beside drawing: ")[0] for note in told] == ["solving distill", "solving ssr"]


def test_the_disk_space_of_routers_is_counted(studio: Studio, tmp_path: Path) -> None:
    def routers(*methods: str) -> int:
        config = Config.of(**options(studio, tmp_path / "study") | {"methods": methods})
        session = prepare(config, Silent())
        prompts = search_prompts(config, session.sources)
        return need(session, prompts, prompts, StudyDirectory(tmp_path / "study")).routers

    adapters = [load_adapter(path) for path in studio.sources[:2]]
    renderer = prepare(Config.of(**options(studio, tmp_path / "study")), Silent()).renderer
    assert isinstance(renderer, Renderer)
    texts = correctable(renderer.shapes)
    assert texts
    plain, corrected = (
        sum(sum(ranks) ** 2 * 4 for ranks in Router.identity(with_correction(adapters, rank, texts)).ranks.values())
        for rank in (0, int(CORRECTION.start))
    )
    assert routers("distill", "ssr") == (3 + 1) * corrected + plain
    assert routers("ssr") == 2 * plain < 2 * corrected
    assert routers("ties") == 0


def test_the_composition_is_scored_and_shown(studio: Studio, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = optimize(**options(studio, tmp_path / "study"))
    verdict = study.summary.verdict
    assert verdict is not None
    assert COMPOSITION in verdict.rows
    assert verdict.winner != COMPOSITION
    (column,) = (column for column in study.summary.columns if column.kind == "composition")
    assert column.label == COMPOSITION
    assert all((study.directory / file).is_file() for file in column.files)
    report = (study.directory / "report.html").read_text("utf-8")
    assert report.count(COMPOSITION) > 2
    assert "no file can hold it" in report
    print_verdict(study.summary, study.directory, study.best, Console(width=80))
    told = capsys.readouterr().out
    assert "\ncomposition  " in told
    assert "composition: what a merge should draw; no file can hold it" in told


def test_a_resumed_study_solves_nothing_again_unless_a_router_is_damaged(studio: Studio, tmp_path: Path, solved: list[str]) -> None:
    out = tmp_path / "study"
    first = recipes(optimize(**options(studio, out)))
    grown = recipes(optimize(**options(studio, out) | {"budget": 20}))
    assert first.items() <= grown.items()
    assert solved == ["distill", "ssr"]
    calibrations = {recipe.method: recipe.calibration for recipe in grown.values() if recipe.checkpoint == 100}
    for calibration in filter(None, calibrations.values()):
        (out / "routers" / f"{calibration}.safetensors").write_bytes(b"torn")
    more = recipes(optimize(**options(studio, out) | {"budget": 30}, observer=(observer := Noting())))
    assert any(note.startswith("warning: a router of the study cannot be used and is solved again: ") for note in observer.notes)
    assert {"distill", "ssr"} & {*solved[2:]}
    for label in more.keys() - grown.keys():
        if more[label].calibration and more[label].checkpoint == 100:
            assert more[label].calibration == calibrations[more[label].method]


def test_a_fork_takes_routers_over(studio: Studio, tmp_path: Path, solved: list[str]) -> None:
    optimize(**options(studio, tmp_path / "study"))
    forked = optimize(**options(studio, tmp_path / "study"), fork="other")
    assert forked.directory == tmp_path / "other"
    assert solved == ["distill", "ssr"]
    assert load_summary(tmp_path / "other").verdict is not None


def test_a_merge_that_cannot_be_solved_fails_its_trials_and_nothing_else(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(solver: Solver, recipe: Recipe, *_: Any) -> Solution:
        asked.append(recipe.method)
        raise TrialError("the loss of the training is nan", remedy="lower the learning rate")

    monkeypatch.setattr(Solver, "solve", fail)
    study = optimize(**options(studio, tmp_path / "study"))
    failed = [t for t in study.trials if t.error]
    assert asked == ["distill", "ssr"]
    assert len(failed) > 1
    assert failed[0].error == "the loss of the training is nan — lower the learning rate"
    assert {t.error for t in failed[2:]} <= {f"{m}: the loss of the training is nan — see the first trial that failed by it" for m in asked}
    assert study.best is not None
