"""Whole runs with a source that changes nothing: it is named, and the score is over the others."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from objectives import balance
from optimizer import optimize
from optimizer.cli.main import execute
from optimizer.errors import UsageError
from optimizer.search import loop
from optimizer.search.evaluation import evaluator
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.identifiable import left_out_of
from optimizer.search.observer import Silent
from studies.front import axes_of
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import After, record, trials

TOLD = (
    "idle is not identifiable: alone it changes too little to be measured on these prompts, so it does not count in the score; "
    "give --triggers or --prompts"
)


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    files = []
    for index, name in enumerate(("a", "b", "idle")):
        parts = random_parts(LINEAR, rank=2, seed=index)
        if name == "idle":
            parts = {path: replace(part, up=part.up * 1e-3) for path, part in parts.items()}
        files.append(str(kohya_file(tmp_path / f"{name}.safetensors", parts).path))
    return {"sources": files, "base": "fake:size=16", "budget": 3, "own": 4, "joint": 4, "confirm": 4, "out": tmp_path / "study"}


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_it_is_named_everywhere_and_does_not_count(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    notes = Notes()
    study = optimize(**options, observer=notes)
    assert [note for note in notes.notes if "identifiable" in note] == [f"warning: {TOLD}"]
    assert [line for line in study.summary.warnings if line.startswith("idle")] == [TOLD]
    assert study.summary.verdict
    assert "idle cannot be measured on these prompts and does not count." in study.summary.verdict.sentence
    winner = study.summary.verdict.rows[study.summary.verdict.winner]
    assert math.isnan(winner.sources["idle"])
    assert winner.weakest == min(winner.sources["a"], winner.sources["b"]) > 0
    best = study.summary.best
    assert best
    assert best.evaluation
    shares = [best.evaluation.sources[name].preservation for name in "ab"]
    factors = [value for name, value in best.evaluation.metrics.items() if name.endswith(":factor")]
    balance = math.sqrt(min(shares) * math.sqrt(shares[0] * shares[1]))
    assert best.evaluation.score == pytest.approx(balance * math.prod(factors) * 8 / (8 + best.evaluation.artifacts))
    table = pd.read_csv(study.directory / "trials.csv")
    assert table["preservation:idle"].isna().all()
    assert table["own:idle"].notna().all()
    assert "idle is not identifiable" in (study.directory / "report.html").read_text("utf-8")
    assert "idle cannot be measured on the prompts and does not count." in (study.directory / "best" / "README.md").read_text("utf-8")
    assert execute(["report", str(study.directory)]) == 0
    capsys.readouterr()


def test_priorities_and_the_front_are_those_of_the_sources_that_count(options: dict[str, Any]) -> None:
    study = optimize(**options, priority=("a=3", "idle=9"), pareto=True)
    for trial in study.trials:
        assert trial.evaluation
        shares = [trial.evaluation.sources[name].preservation for name in "ab"]
        factors = [value for name, value in trial.evaluation.metrics.items() if name.endswith(":factor")]
        wanted = float(balance(torch.tensor(shares, dtype=torch.float64), (3, 1)))
        assert trial.evaluation.score == pytest.approx(wanted * math.prod(factors) * 8 / (8 + trial.evaluation.artifacts))
        assert len(axes_of(trial.evaluation)) == 3
    assert study.summary.front
    forked = optimize(**options | {"out": options["out"].with_name("equal")})
    before, after = Aims({"a": 3.0, "b": 1.0, "idle": 9.0}), Aims()
    for ours, theirs in zip(study.trials[:3], forked.trials[:3], strict=True):
        assert ours.evaluation
        assert theirs.evaluation
        assert after.rejudged(ours.evaluation, before).score == pytest.approx(theirs.evaluation.score)


def test_a_target_for_a_source_that_cannot_be_measured(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_evaluate", lambda *_: pytest.fail("the search began"))
    with pytest.raises(
        UsageError, match=r"^--keep: idle is not identifiable, so nothing tells how much a merge keeps of it — give their trig"
    ):
        optimize(**options, keep=("idle=0.5",))


def test_a_resumed_study_leaves_out_what_it_began_to_leave_out(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = optimize(**options)
    again = options | {"out": tmp_path / "again"}
    optimize(**again, observer=After(3, rendering=False))
    monkeypatch.setattr(evaluator, "unidentifiable", lambda _: pytest.fail("decided anew"))
    assert trials(optimize(**again).trials) == trials(whole.trials)


def test_a_study_that_counted_every_source_goes_on_so(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(evaluator, "unidentifiable", lambda _: frozenset())
        optimize(**options, observer=After(3, rendering=False))
    study = optimize(**options)
    assert all(r.evaluation and r.evaluation.sources["idle"].preservation == 0 for r in study.trials)
    assert {r.evaluation.score for r in study.trials if r.evaluation} == {0.0}
    assert not [line for line in study.summary.warnings if "identifiable" in line]


def test_no_source_at_all(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "unidentifiable", lambda _: frozenset({0, 1, 2}))
    monkeypatch.setattr(loop, "_evaluate", lambda *_: pytest.fail("the search began"))
    with pytest.raises(UsageError) as caught:
        optimize(**options)
    assert str(caught.value) == (
        "--sources: no source is identifiable: alone, each changes too little to be measured on these prompts — give their triggers "
        "(--triggers) or prompts that show them (--prompts), and check that the base is theirs"
    )


def test_what_a_study_leaves_out_is_read_from_its_first_evaluation() -> None:
    assert left_out_of([], ["a"]) is None
    assert left_out_of([record(0, None)], ["a"]) is None
    assert left_out_of([record(0, None), record(1, 0.5)], ["a"]) == frozenset()
    assert left_out_of([record(0, math.nan)], ["a"]) == frozenset({0})
