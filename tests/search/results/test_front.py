"""A search for a Pareto front on a fake base: its members, what is written of them, and that each can be exported as it was scored."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from optimizer import Recipe, Study, load_adapter
from optimizer import merge as merge_adapters
from optimizer.cli.main import execute
from optimizer.errors import RecipeError, UsageError
from optimizer.search.config import Config, checked
from optimizer.search.observer import Silent
from optimizer.search.results.front import front_of
from optimizer.search.run import run
from studies import StudyDirectory, StudySummary, load_summary, write_report
from studies.front import axes_of
from studies.records import Evaluation, SourceScore, TrialRecord
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import After, record, trials

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("sources")
    parts = {name: random_parts(LINEAR, rank=2 + index, seed=index) for index, name in enumerate(("hero", "style"))}
    return tuple(str(kohya_file(folder / f"{name}.safetensors", part).path) for name, part in parts.items())


def options(sources: tuple[str, ...], **more: Any) -> dict[str, Any]:
    return {"sources": sources, "base": "fake:size=8", "budget": 10, "own": 1, "joint": 1, "confirm": 1, "pareto": True} | more


@pytest.fixture(scope="module")
def study(sources: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Study:
    return run(Config.of(**options(sources, out=tmp_path_factory.mktemp("front") / "study")), Silent())


def candidate(number: int, *kept: float, artifacts: float = 0.0, score: float = 0.5, factor: float = 1.0, label: str = "") -> TrialRecord:
    shares = {name: SourceScore(preservation=share, own=share, joint=share) for name, share in zip("ab", kept, strict=True)}
    metrics = {"familiarity:factor": factor}
    found = Evaluation(recipe={}, recipe_hash=str(number), score=score, sources=shares, artifacts=artifacts, metrics=metrics)
    return TrialRecord(number=number, label=label, evaluation=found)


def test_members_are_what_no_other_merge_beats() -> None:
    records = [
        candidate(0, 1.0, 0.0, label="a alone"),
        candidate(1, 0.5, 0.5, artifacts=1.0, score=0.3),
        candidate(2, 0.5, 0.4, artifacts=1.0),  # beaten by 1
        candidate(3, 0.5, 0.4, artifacts=0.5, score=0.4),
        candidate(4, 0.9, 0.1),
        candidate(5, 1.0, 1.0, score=0.0),  # a source is lost by another objective
        candidate(6, 0.9, 0.9, factor=0.5),  # beaten by nothing in a, but discounted
        candidate(7, 0.6, 0.6, artifacts=float("nan")),
        record(8, None),
    ]
    assert [r.number for r in front_of(records)] == [4, 6, 3, 1]
    assert [r.number for r in front_of([*records, candidate(9, 0.95, 0.95, score=0.9)])] == [9]
    again = candidate(9, 0.9, 0.1).model_copy(update={"evaluation": records[4].evaluation})
    assert [r.number for r in front_of([*records, again])] == [4, 6, 3, 1], "one recipe is one member"
    assert records[4].evaluation
    bound = records[4].evaluation.model_copy(update={"constraints": {"keep:b": 0.1}})
    assert [r.number for r in front_of([*records[:4], candidate(4, 0.9, 0.1).model_copy(update={"evaluation": bound})])] == [3, 1]
    assert front_of([]) == front_of(records[:1]) == []


def test_the_axes_are_the_shares_times_all_factors_but_that_of_the_artifacts(study: Study) -> None:
    for trial in study.trials:
        assert trial.evaluation
        *kept, damage = axes_of(trial.evaluation)
        factor = trial.evaluation.metrics["familiarity:factor"] * trial.evaluation.metrics["separation:factor"]
        assert kept == [pytest.approx(s.preservation * factor) for s in trial.evaluation.sources.values()]
        assert damage == -trial.evaluation.artifacts


def test_the_winner_is_exported_as_ever_and_the_front_is_written(study: Study) -> None:
    assert study.best is not None
    assert study.best.is_file()
    assert study.complete
    members = study.summary.front
    assert [m.number for m in members] == [r.number for r in front_of(study.trials)]
    assert len(members) > 1
    written = sorted(path.name for path in (study.directory / "front").iterdir())
    assert written == sorted(f"trial-{m.number}.{end}" for m in members for end in ("yaml", "webp"))
    assert load_summary(study.directory) == study.summary


def test_each_member_is_exported_as_it_was_scored(
    study: Study, sources: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    by_number = {t.number: t.evaluation for t in study.trials}
    for member in study.summary.front:
        words = shlex.split(member.command)
        assert words[:2] == ["optimize", "merge"]
        assert execute([*words[1:], "--out", f"{member.number}.safetensors"]) == 0
        found = by_number[member.number]
        assert found
        assert yaml.safe_load((study.directory / member.recipe).read_text())["setup"]["names"] == ["hero", "style"]
        merged = merge_adapters([load_adapter(source) for source in sources], Recipe.from_data(found.recipe))
        read = load_adapter(f"{member.number}.safetensors")
        assert read.modules.keys() == merged.modules.keys()
        for name, factors in merged.modules.items():
            assert torch.allclose(read.modules[name].delta(), factors.delta(), atol=1e-3)


def test_what_is_told(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["resume", str(study.directory)]) == 0
    out = capsys.readouterr().out
    shown = next(line.removeprefix("front   ") for line in out.splitlines() if line.startswith("front   "))
    assert shown in [m.command for m in study.summary.front if m.number != study.summary.best_number]
    report = (study.directory / "report.html").read_text()
    assert report.count("Pictures of trial") == len(study.summary.front)
    section = report[report.index('<section id="front">') :]
    section = section[: section.index("</section>")]
    assert all(f'href="#trial-{m.number}"' in section and m.command in section for m in study.summary.front)
    assert section.count('<div class="chart ') == 2
    assert execute(["status", str(study.directory), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["finished"], status["ended"]) == (True, len(study.trials))


def test_proposals_are_others_than_those_for_the_best_score(study: Study, sources: tuple[str, ...], tmp_path: Path) -> None:
    plain = run(Config.of(**options(sources, out=tmp_path / "study", pareto=False)), Silent())
    assert plain.summary.front == ()
    assert not (tmp_path / "study" / "front").exists()
    assert 'id="front"' not in (tmp_path / "study" / "report.html").read_text()
    assert trials(plain.trials)[:4] == trials(study.trials)[:4]
    assert trials(plain.trials) != trials(study.trials)


def test_an_interrupted_search_goes_on_as_an_uninterrupted_one(study: Study, sources: tuple[str, ...], tmp_path: Path) -> None:
    command = Config.of(**options(sources, out=tmp_path / "study"))
    stopped = run(command, After(9, rendering=True))
    assert not stopped.complete
    folder = tmp_path / "study" / "front"
    (folder / "trial-99.yaml").write_text("of a member that is none any more")
    resumed = run(command, Silent())
    assert trials(resumed.trials) == trials(study.trials)
    assert [m.number for m in resumed.summary.front] == [m.number for m in study.summary.front]
    assert not (folder / "trial-99.yaml").exists()


def test_workers(sources: tuple[str, ...], tmp_path: Path) -> None:
    small = ["--own", "1", "--joint", "1", "--confirm", "1", "--budget", "6", "--out", str(tmp_path / "study")]
    command = [sys.executable, "-m", "optimizer", "--sources", *sources, "--base", "fake:size=8", *small, "--pareto", "--workers", "2"]
    subprocess.run([*command, "--keep", "hero=0.2"], check=True, capture_output=True)
    found = load_summary(tmp_path / "study")
    assert len(found.trials) == 10
    assert all(t.evaluation for t in found.trials)
    assert [m.number for m in found.front] == [r.number for r in front_of(found.trials)]


def test_a_missing_sheet_is_named(study: Study, tmp_path: Path) -> None:
    text = write_report(study.summary, StudyDirectory(tmp_path)).read_text()
    assert f"The contact sheet of trial {study.summary.front[0].number} is not shown: the file is missing." in text
    changed = study.summary.model_dump() | {"front": [{"number": 99, "recipe": "r", "command": "c"}]}
    with pytest.raises(ValueError, match="trial 99 is on the front and not among the complete trials"):
        StudySummary.model_validate(changed)


def test_a_front_that_cannot_be_written_costs_neither_report_nor_winner(
    sources: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise RecipeError("the router that the recipe names is missing", where="routers")

    monkeypatch.setattr("optimizer.search.run.write_front", missing)
    found = run(Config.of(**options(sources, budget=1, out=tmp_path / "study")), Silent())
    assert found.best
    assert found.summary.front == ()
    assert found.summary.warnings == ("the front cannot be written: routers: the router that the recipe names is missing",)
    assert "the front cannot be written" in (tmp_path / "study" / "report.html").read_text()


def test_full_models_have_no_front(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    models = Config.of(sources=(str(tmp_path / "a"), str(tmp_path / "b")), kind="model", pareto=True)
    with pytest.raises(UsageError, match=r"^--pareto: members of a front are exported as LoRAs — leave it out, or leave --kind model out$"):
        checked(models)
