"""Which trials' pictures stay on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from optimizer import Study, optimize
from optimizer.cli.main import execute
from optimizer.search.config import KeepImages
from optimizer.search.images.png import save_images
from optimizer.search.images.retention import ImageRetention
from optimizer.search.observer import Silent
from studies.records import TrialRecord
from studies.store import Store
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import record, trials


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sources")
    files = [str(kohya_file(folder / f"{n}.safetensors", random_parts(LINEAR, rank=2, seed=i)).path) for i, n in enumerate("ab")]
    return {"sources": files, "base": "fake:size=4", "budget": 8, "own": 1, "joint": 1, "confirm": 1, "finalists": 2}


class Counting(Silent):
    """Counts the folders with pictures of trials whenever a trial has ended."""

    def __init__(self, study: Path) -> None:
        self.study, self.counts = study, list[int]()

    def trial(self, record: TrialRecord) -> None:
        self.counts.append(len(folders(self.study)))


def folders(study: Path) -> set[str]:
    return {p.name for p in (study / "images/trials").glob("*")}


def named(study: Study) -> dict[int, tuple[str, ...]]:
    return {t.number: t.evaluation.images for t in study.trials if t.evaluation and t.evaluation.images}


def test_only_baselines_and_the_best_stay(options: dict[str, Any], tmp_path: Path) -> None:
    observer = Counting(tmp_path / "best")
    best = optimize(**options, out=tmp_path / "best", observer=observer)
    everything = optimize(**options, out=tmp_path / "all", keep_images="all")
    nothing = optimize(**options, out=tmp_path / "none", keep_images="none")
    assert trials(best.trials) == trials(everything.trials) == trials(nothing.trials)
    assert len(best.trials) == 12
    scores = {t.evaluation.recipe_hash: t.evaluation.score for t in best.trials[4:] if t.evaluation}
    baselines = {t.evaluation.recipe_hash for t in best.trials[:4] if t.evaluation}
    ranked = sorted(scores.keys() - baselines, key=lambda recipe: -scores[recipe])
    assert folders(best.directory) == {name[:16] for name in baselines | set(ranked[:2])}
    assert max(observer.counts) <= 4 + 2
    assert folders(everything.directory) == {t.evaluation.recipe_hash[:16] for t in everything.trials if t.evaluation}
    assert not (nothing.directory / "images/trials").exists()
    assert not (nothing.directory / "sheets").exists()
    hashes = {t.evaluation.recipe_hash[:16] for t in best.trials if t.evaluation}
    assert {p.name for p in (best.directory / "sheets").iterdir()} == hashes
    assert (len(named(everything)), named(nothing)) == (12, {})
    for study in (best, everything):
        assert all((study.directory / file).is_file() for files in named(study).values() for file in files)
    for study in (best, everything, nothing):
        assert (study.directory / "images/baselines/base/000.png").is_file()
        assert list((study.directory / "images/confirmation").glob("*/*.png"))
        assert len(list((study.directory / "evaluations").glob("*.json"))) == len(
            {t.evaluation.recipe_hash for t in study.trials if t.evaluation}
        )
    kept = {name for name, found in evaluations(best.directory).items() if found}
    assert kept == {name for name in scores | dict.fromkeys(baselines) if name[:16] in folders(best.directory)}


def evaluations(study: Path) -> dict[str, list[str]]:
    found = [json.loads(p.read_bytes())["evaluation"] for p in (study / "evaluations").glob("*.json")]
    return {e["recipe_hash"]: e["images"] for e in found}


def test_what_falls_is_what_no_kept_trial_shares() -> None:
    def with_pictures(number: int, score: float, label: str = "", recipe: str = "") -> TrialRecord:
        found = record(number, score, label, recipe)
        assert found.evaluation
        return found.model_copy(update={"evaluation": found.evaluation.model_copy(update={"images": ("x",)})})

    known = [
        with_pictures(0, 0.1, "a alone"),
        with_pictures(1, 0.2, "stack"),
        with_pictures(2, 0.3, recipe="p"),
        with_pictures(3, 0.9, recipe="q"),
        record(4, None),
    ]
    shared = [*known, with_pictures(5, 0.1, recipe="0"), with_pictures(6, 0.3, recipe="p")]
    by_number = {r.number: r for r in shared}
    assert [r.number for r in ImageRetention("best", 1).displaced(by_number)] == [2, 6]
    assert ImageRetention("best", 2).displaced(by_number) == []
    assert ImageRetention("all", 0).displaced(by_number) == []
    assert [r.number for r in ImageRetention("none", 5).displaced(by_number)] == [0, 1, 2, 3, 5, 6]


def test_what_better_trials_have_displaced_already_is_not_written() -> None:
    known = {r.number: r for r in (record(0, 0.1, "a alone"), record(1, 0.3, recipe="p"), record(2, 0.9, recipe="q"), record(3, None))}

    def room(keep: KeepImages, score: float, label: str = "", recipe: str = "new") -> bool:
        found = record(4, score, label, recipe).evaluation
        assert found
        return ImageRetention(keep, 2).keeps(known, label, found)

    assert [room("best", score) for score in (0.2, 0.4, 1.0)] == [False, True, True]
    assert room("best", 0.0, "stack")
    assert room("best", 0.1, recipe="0"), "that of a baseline"
    assert room("best", 0.3, recipe="p")
    assert room("all", 0.0)
    assert not room("none", 1.0)


def test_pictures_are_packed_for_trials_that_stay_only(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = set[str]()

    def save(store: Store, name: str, images: Tensor) -> tuple[str, ...]:
        written.add(name)
        return save_images(store, name, images)

    monkeypatch.setattr("optimizer.search.images.retention.save_images", save)
    study = optimize(**options | {"finalists": 1}, out=tmp_path)
    improved, best = 0, -1.0
    for trial in study.trials[4:]:
        if trial.evaluation and trial.evaluation.score > best:
            improved, best = improved + 1, trial.evaluation.score
    assert 4 + 1 <= len(written) <= 4 + improved < len(study.trials)


def test_another_choice_on_resume(options: dict[str, Any], tmp_path: Path) -> None:
    first = optimize(**options | {"budget": 4}, out=tmp_path, keep_images="all")
    assert len(named(first)) == 8
    second = optimize(**options, out=tmp_path, keep_images="none")
    assert trials(second.trials)[:8] == trials(first.trials)
    assert (named(second), folders(tmp_path)) == ({}, set())


def test_a_choice_that_does_not_exist(options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sources", *options["sources"], "--base", "fake:", "--out", str(tmp_path / "o"), "--keep-images", "some"]
    assert execute(words) == 2
    assert capsys.readouterr().err == "optimize: --keep-images: got 'some' — it should be 'best', 'all' or 'none'\n"
