"""``optimize merge STUDY --method soup``: the mean of a study's best weighted sums, and how it compares."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from optimizer import Recipe, Study, load_adapter, optimize
from optimizer import merge as merge_adapters
from optimizer.cli.main import execute
from optimizer.cli.tables.merge import print_soup
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.study_soup import study_soup
from optimizer.search.config import Config
from optimizer.search.evaluation.prompt_sets import search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.observer import Silent
from tests.files import LINEAR, kohya_file, random_parts
from tests.merging.samples import relative_error


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sources")
    return [str(kohya_file(folder / f"{n}.safetensors", random_parts(LINEAR, rank=2 + i, seed=i)).path) for i, n in enumerate(("a", "b"))]


@pytest.fixture(scope="module")
def study(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Study:
    out = tmp_path_factory.mktemp("runs") / "study"
    return optimize(sources=files, base="fake:size=8", budget=14, own=2, joint=2, confirm=4, out=out, methods=("ties",), seed=3)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_soup_is_the_mean_of_the_trials_it_names(
    study: Study, files: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(study.directory)
    assert execute(["merge", str(study.directory), "--method", "soup", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    soup, recipe = facts["soup"], Recipe.from_data(facts["merge"])
    by_name = {t.label or f"trial {t.number}": t.evaluation for t in study.trials if t.evaluation}
    ranked = sorted(soup["tried"], key=lambda name: -by_name[name].score)
    assert soup["tried"] == ranked
    assert soup["chosen"][0] == ranked[0]
    assert len(soup["tried"]) == 8
    assert not any(name.endswith(" alone") for name in soup["tried"])
    assert {by_name[name].recipe["method"] for name in soup["tried"]} == {"linear"}
    assert soup["score_of_best"] == pytest.approx(by_name[ranked[0]].score, abs=1e-6)
    assert soup["score"] >= soup["score_of_best"]

    sources = [load_adapter(file) for file in files]
    written, parts = load_adapter(facts["file"]), [merge_adapters(sources, Recipe.from_data(by_name[n].recipe)) for n in soup["chosen"]]
    assert len(parts) > 1, "choose another seed: nothing is averaged here"
    for path, factors in written.modules.items():
        assert relative_error(factors.delta(), torch.stack([part.modules[path].delta() for part in parts]).mean(dim=0)) < 2e-3

    config = Config.from_yaml(study.directory / "study.yaml")
    session = prepare(config, Silent())
    scored = session.evaluator(search_prompts(config, session.sources), Silent()).evaluate(recipe).evaluation
    assert scored.score == pytest.approx(soup["score"], abs=1e-6)
    assert {"soup", "stack", "naive", "a alone", "b alone"} <= set(soup["confirmed"])
    assert soup["preferred"] in soup["confirmed"]
    assert content(study.directory) == before


def test_what_is_printed(study: Study, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["merge", str(study.directory), "--method", "soup", "--out", "mine.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("soup of ")
    assert "on fresh prompts" in out
    assert "\nLoRA    mine.safetensors" in out
    assert err.splitlines()[0] == "soup: 11 picture sets"
    assert Recipe.from_yaml((here / "mine.yaml").read_text()).method == "linear"


def test_a_soup_that_is_not_better_is_said_to_be(study: Study, here: Path) -> None:
    made = study_soup(study.directory, MergeOptions(method="soup"), Silent())
    for contender in made.confirmation.contenders:
        text = StringIO()
        print_soup(replace(made, confirmation=replace(made.confirmation, winner=contender)), Console(file=text, width=200))
        assert (f"within noise of it: {contender.label} is the safer choice\n" in text.getvalue()) == (contender.label != "soup")


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert execute(["merge", *arguments]) == 2
    return capsys.readouterr().err.removeprefix("optimize: ").rstrip("\n")


def test_what_makes_no_soup_is_refused(study: Study, here: Path, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    soup = ["--method", "soup"]
    remedy = "name the study's directory, or use the method 'model_soup', the mean of the sources"
    assert refusal([*soup, "--sources", *files], capsys) == f"--method soup: a soup is made of the trials of a study — {remedy}"
    assert refusal([str(here), *soup], capsys) == (
        f"{here}: this is not a study, it holds no study.yaml — name the directory of a finished study"
    )
    place = str(study.directory)
    assert refusal([place, *soup, "--weights", "1", "1"], capsys) == "--weights: the study decides it — leave it out, with --method soup"
    assert refusal([place, *soup, "--target-mb", "5"], capsys).startswith("--target-mb: the study decides it")
    (here / "study.yaml").write_text((study.directory / "study.yaml").read_text())
    assert refusal([str(here), *soup], capsys).startswith(f"{here}/summary.json: cannot be read")
    (here / "study.yaml").write_text("kind: model\nsources: [a, b]\n")
    assert refusal([str(here), *soup], capsys).startswith(f"{here}: a soup is made of merges of LoRAs, the study is of full models")


def test_a_study_with_too_few_weighted_sums_is_refused(files: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = optimize(sources=files, base="fake:size=8", budget=1, own=1, joint=1, confirm=1, out=here / "study")
    summary = json.loads(study.directory.joinpath("summary.json").read_text())
    for trial in summary["trials"]:
        trial["evaluation"]["score"] = 0.0
    study.directory.joinpath("summary.json").write_text(json.dumps(summary))
    message = "a soup needs two or more trials that are weighted sums with a score above 0; the study has 0 — "
    assert refusal([str(study.directory), "--method", "soup"], capsys).startswith(f"{study.directory}: {message}")
