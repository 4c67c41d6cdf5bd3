"""A fork is a new study that begins with what is still valid of another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from optimizer import Study, optimize
from optimizer.cli.main import execute
from optimizer.errors import StudyError, UsageError
from optimizer.merging import Recipe
from optimizer.search.config import Config
from optimizer.search.observer import Silent
from optimizer.search.trials import fork
from optimizer.search.trials.repair import repair
from studies import StudyDirectory
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import After, trials, watch_evaluations


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sources")
    files = [str(kohya_file(folder / f"{n}.safetensors", random_parts(LINEAR, rank=2, seed=i)).path) for i, n in enumerate("ab")]
    return {"sources": files, "base": "fake:size=4", "budget": 4, "own": 1, "joint": 1, "confirm": 1, "finalists": 1, "methods": ["ties"]}


@pytest.fixture(scope="module")
def old(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Study:
    return optimize(**options, out=tmp_path_factory.mktemp("old") / "study")


@pytest.fixture
def copy(old: Study, tmp_path: Path) -> Path:
    return Path(shutil.copytree(old.directory, tmp_path / "study"))


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that are evaluated from now on."""
    return watch_evaluations(monkeypatch)


def hashes(study: Study) -> list[str]:
    return [t.evaluation.recipe_hash for t in study.trials if t.evaluation]


def test_other_methods_and_a_larger_budget(old: Study, options: dict[str, Any], copy: Path, evaluated: list[Recipe]) -> None:
    observer = Noting()
    changes = {"methods": ["dare_linear"], "budget": 6, "fork": "more"}
    study = optimize(**options | changes, out=copy, observer=observer)
    still = [t.evaluation for t in old.trials if t.evaluation and t.evaluation.recipe["method"] == "linear"]
    assert f"{len(still)} trials of study are still valid and taken over" in observer.notes
    assert study.directory == copy.parent / "more"
    assert [t.label for t in study.trials[:4]] == ["a alone", "b alone", "stack", "naive"]
    assert {e.recipe_hash for e in still} <= set(hashes(study))
    assert len(study.trials) == 4 + (len(still) - 4) + 6
    assert {e.recipe_hash for e in still}.isdisjoint(recipe.hash for recipe in evaluated[: len(study.trials) - len(still)])
    assert {e.recipe_hash: e.score for e in still}.items() <= {
        t.evaluation.recipe_hash: t.evaluation.score for t in study.trials if t.evaluation
    }.items()
    assert study.complete
    assert study.summary.budget == 6 + len(still) - 4
    assert f"--out {copy.parent / 'more'}" in study.summary.command
    assert "--fork" not in study.summary.command
    assert all((study.directory / file).is_file() for t in study.trials if t.evaluation for file in t.evaluation.images)
    assert trials(old.trials) == trials(optimize(**options, out=copy).trials)


def test_the_same_again_goes_on_and_so_does_resume(options: dict[str, Any], copy: Path) -> None:
    run = options | {"budget": 6, "fork": "more", "out": copy}
    whole = optimize(**run | {"fork": "whole"})
    stopped = optimize(**run, observer=After(9, rendering=True))
    assert trials(stopped.trials) == trials(whole.trials)[: len(stopped.trials)]
    shutil.rmtree(copy)
    resumed = optimize(**options | {"budget": 6, "out": copy.parent / "more"})
    assert trials(resumed.trials) == trials(whole.trials)


def test_a_fork_that_was_broken_off_while_it_began(options: dict[str, Any], copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = options | {"budget": 6, "out": copy}
    whole = optimize(**run | {"fork": "whole"})
    real, told = fork._import, []

    def dying(*arguments: Any) -> None:
        told.append(arguments)
        if len(told) == 6:
            raise KeyboardInterrupt
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fork, "_import", dying)
        with pytest.raises(KeyboardInterrupt):
            optimize(**run | {"fork": "more"})
    assert not StudyDirectory(copy.parent / "more").is_study
    assert trials(optimize(**run | {"fork": "more"}).trials) == trials(whole.trials)


def test_a_repaired_fork_knows_what_it_has_taken_over(options: dict[str, Any], copy: Path) -> None:
    run = options | {"budget": 6, "fork": "more", "out": copy}
    study = optimize(**run)
    (study.directory / "journal.log").unlink()
    (study.directory / "summary.json").unlink()
    repair(StudyDirectory(study.directory))
    assert trials(optimize(**run).trials) == trials(study.trials)


def test_a_changed_source_leaves_nothing(options: dict[str, Any], copy: Path, tmp_path: Path, evaluated: list[Recipe]) -> None:
    other = kohya_file(tmp_path / "a.safetensors", random_parts(LINEAR, rank=2, seed=7)).path
    observer = Noting()
    study = optimize(**options | {"sources": [str(other), options["sources"][1]], "fork": "other"}, out=copy, observer=observer)
    told = next(line for line in observer.notes if line.startswith("no trial"))
    assert told.startswith("no trial of study is valid any more (source a: ")
    assert told.endswith("): all are evaluated anew")
    assert len(study.trials) == 8
    assert set(hashes(study)) <= {recipe.hash for recipe in evaluated}


def test_no_pictures_where_none_are_kept(options: dict[str, Any], copy: Path) -> None:
    study = optimize(**options | {"fork": "bare", "keep_images": "none"}, out=copy)
    assert not any(t.evaluation.images for t in study.trials if t.evaluation)
    assert not (study.directory / "images/trials").exists()


@pytest.mark.parametrize("name", ["a/b", "..", "study", "/x", "a\\b"])
def test_what_is_no_name(options: dict[str, Any], copy: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        optimize(**options, out=copy, fork=name)
    assert str(caught.value) == f"--fork: {name!r} does not name a new study — give a name of its own: the new study is made beside --out"


def test_what_cannot_be_forked(options: dict[str, Any], copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StudyError) as caught:
        optimize(**options, out=tmp_path / "nowhere", fork="new")
    assert str(caught.value) == f"{tmp_path / 'nowhere'}: there is no study here to fork — name the directory of one with --out"
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/letter.txt").write_text("dear")
    for name in ("taken", "own"):
        if name == "own":
            optimize(**options | {"budget": 1}, out=tmp_path / "own", observer=After(1, rendering=False))
        with pytest.raises(StudyError) as caught:
            optimize(**options, out=copy, fork=name)
        assert str(caught.value) == f"{tmp_path / name}: is no fork of {copy}, and not empty — choose another name for --fork"
    words = ["--sources", *options["sources"], "--base", "fake:", "--out", str(copy), "--fork", "new"]
    assert execute([*words, "--storage", "postgresql://host/base", "--artifacts", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "optimize: --fork: a study in a database cannot be forked — give another --study instead\n"


def test_nothing_is_forked_where_nothing_is_asked_for(options: dict[str, Any], tmp_path: Path) -> None:
    config = Config.of(**options, out=tmp_path)
    assert fork.resolve_fork(config) == (config, None)
