"""Failures: one recipe's is recorded and the run goes on; where nothing can be evaluated, the run says why."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from optimizer import Adapter, Recipe, load_adapter, merge, optimize, save_adapter
from optimizer.cli.main import execute
from optimizer.errors import ExportError, NoFeasibleMerge, TrialError
from optimizer.rendering import Prompt, Renderer
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.search import loop
from optimizer.search.observer import Silent
from optimizer.search.proposals.initial_trials import Start
from studies import load_summary
from tests.studio import Studio

Tick = Callable[[int], None] | None


class Fragile(Renderer):
    """The real renderer, but pictures of a merge whose change is greater than ``limit`` cannot be made."""

    limit = 0.0
    error: type[Exception] = TrialError

    def render(self, prompts: Sequence[Prompt], candidate: Candidate | None = None, *, tick: Tick = None) -> Tensor:
        if isinstance(candidate, Adapter) and candidate.name == "alba-bruno" and _size(candidate) > self.limit:
            raise self.error("the pictures\nhold NaN")
        return super().render(prompts, candidate, tick=tick)


class Blind(Renderer):
    """Cannot render anything."""

    def render(self, prompts: Sequence[Prompt], candidate: Candidate | None = None, *, tick: Tick = None) -> Tensor:
        raise torch.OutOfMemoryError("tried to allocate 9 GiB")


def _size(adapter: Adapter) -> float:
    return math.sqrt(sum(float(factors.delta().square().sum()) for factors in adapter.modules.values()))


def _fragile(limit: float, error: type[Exception] = TrialError) -> type[Renderer]:
    return type("Fragile", (Fragile,), {"limit": limit, "error": error})


@pytest.mark.parametrize(("error", "reason"), [(TrialError, "the pictures hold NaN"), (TypeError, "TypeError: the pictures hold NaN")])
def test_a_failed_trial_is_recorded_with_its_reason_and_the_run_goes_on(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], reason: str
) -> None:
    sources = [load_adapter(path) for path in studio.sources[:2]]
    stack = _size(merge(sources, Recipe(method="linear", weights=(1.0, 1.0))))
    monkeypatch.setattr("optimizer.rendering.assemble.Renderer", _fragile(0.99 * stack, error))
    monkeypatch.setattr(loop, "defaults", lambda *_: [Start("nothing", {"weight:alba": 0.0, "weight:bruno": 0.0})])
    study = optimize(**studio.options(out=tmp_path, budget=1, methods=("linear",), finalists=1))
    stacked, simple, nothing = study.trials[2:5]
    assert (stacked.label, stacked.state, stacked.error, stacked.evaluation) == ("stack", "FAIL", reason, None)
    assert (simple.label, simple.state) == ("naive", "COMPLETE")
    assert nothing.evaluation is not None
    assert (nothing.label, nothing.state, nothing.evaluation.score) == ("nothing", "COMPLETE", 0)
    assert study.best is not None
    assert study.complete
    assert study.summary.warnings == (f"trial 2 failed: {reason}",)
    assert reason in (tmp_path / "report.html").read_text()


def test_where_every_merge_fails_the_run_says_so_and_leaves_a_report(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.rendering.assemble.Renderer", _fragile(0.0))
    with pytest.raises(NoFeasibleMerge) as caught:
        optimize(**studio.options(out=tmp_path, budget=1))
    assert str(caught.value) == f"{tmp_path}: no merge can be used; the last failure: the pictures hold NaN — see report.html"
    assert caught.value.exit_code == 3
    assert len(load_summary(tmp_path).warnings) == 5
    assert (tmp_path / "report.html").is_file()
    assert list((tmp_path / "best").iterdir()) == []


def test_where_not_even_the_base_can_be_rendered_no_trial_is_spent(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.rendering.assemble.Renderer", Blind)
    with pytest.raises(NoFeasibleMerge, match="base and sources cannot be rendered: OutOfMemoryError: tried to allocate 9 GiB"):
        optimize(**studio.options(out=tmp_path))
    monkeypatch.undo()
    study = optimize(**studio.options(out=tmp_path, budget=1))
    assert {t.state for t in study.trials} == {"COMPLETE"}


def test_a_source_that_cannot_be_drawn_is_named(studio: Studio, tmp_path: Path) -> None:
    wild = load_adapter(studio.sources[1])
    modules = {path: replace(factors, up=factors.up.float() * 1e36) for path, factors in wild.modules.items()}
    save_adapter(replace(wild, modules=modules), tmp_path / "wild.safetensors", dtype=torch.float32)
    message = r"base and sources cannot be rendered: wild alone: \d+ of \d+ pictures hold NaN, .* — check the file and the base that it was"
    with pytest.raises(NoFeasibleMerge, match=message):
        optimize(**studio.options(out=tmp_path / "study", sources=(studio.sources[0], tmp_path / "wild.safetensors")))


def test_a_source_that_changes_nothing_is_named(studio: Studio, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    idle = load_adapter(studio.sources[1])
    modules = {path: replace(factors, up=factors.up * 1e-6) for path, factors in idle.modules.items()}
    save_adapter(replace(idle, modules=modules), tmp_path / "idle.safetensors", dtype=torch.float32)
    sources = (studio.sources[0], tmp_path / "idle.safetensors")
    reason = "alone it changes too little to be measured on these prompts, so it does not count in the score"
    warning = f"idle is not identifiable: {reason}; give --triggers or --prompts"
    assert execute(studio.arguments(out=tmp_path / "study", sources=sources, budget=1, finalists=1)) == 0
    assert f"warning: {warning}" in capsys.readouterr().err.splitlines()
    assert load_summary(tmp_path / "study").warnings == (warning,)


def test_a_timeout_before_the_first_trial_leaves_a_report_that_says_so(studio: Studio, tmp_path: Path) -> None:
    study = optimize(**studio.options(out=tmp_path, timeout=1e-6))
    assert (study.complete, study.best, study.trials) == (False, None, ())
    assert study.summary.resume_command == f"optimize resume {tmp_path}"
    assert (tmp_path / "report.html").is_file()


def test_a_timeout_after_some_trials_exports_the_best_of_these(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([False] * 4)
    monkeypatch.setattr(loop, "passed", lambda _: next(left, True))
    study = optimize(**studio.options(out=tmp_path))
    assert (len(study.trials), study.complete) == (4, False)
    assert study.best is not None
    assert study.summary.finished is None
    monkeypatch.undo()
    assert len(optimize(**studio.options(out=tmp_path)).trials) == 7


def test_a_finalist_that_fails_on_fresh_prompts_is_dropped_and_named(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unlucky(Fragile):
        """Cannot render the stack on the six prompts of the confirmation."""

        def render(self, prompts: Sequence[Prompt], candidate: Candidate | None = None, *, tick: Tick = None) -> Tensor:
            self.limit = 0.99 * stack if len(prompts) == 6 else math.inf
            return super().render(prompts, candidate, tick=tick)

    stack = _size(merge([load_adapter(path) for path in studio.sources[:2]], Recipe(method="linear", weights=(1.0, 1.0))))
    notes: list[str] = []
    monkeypatch.setattr("optimizer.rendering.assemble.Renderer", Unlucky)
    monkeypatch.setattr(Silent, "note", lambda _, message: notes.append(message))
    study = optimize(**studio.options(out=tmp_path, budget=1, confirm=2))
    assert "stack cannot be confirmed: the pictures hold NaN" in " ".join(" ".join(notes).split())
    assert study.summary.verdict is not None
    assert "stack" not in study.summary.verdict.rows
    assert study.best is not None


def test_a_failed_export_leaves_the_report_and_its_reason(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ExportError("the written ΔW differs", where="x.safetensors")

    monkeypatch.setattr("optimizer.search.results.export.verify_export", refuse)
    with pytest.raises(ExportError):
        optimize(**studio.options(out=tmp_path, budget=1))
    summary = load_summary(tmp_path)
    assert summary.warnings == ("the export failed: x.safetensors: the written ΔW differs",)
    assert summary.verdict is not None
    assert summary.finished is None
    assert summary.file == ""
