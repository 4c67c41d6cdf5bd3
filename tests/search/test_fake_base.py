"""Whole runs on a fake base: everything but the model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from optimizer import load_adapter, optimize
from optimizer.cli.main import execute
from optimizer.errors import StudyError, UsageError
from optimizer.rendering import Prompt
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.fake import FakeRenderer
from optimizer.search.config import Config, checked
from optimizer.search.evaluation.fingerprint import evaluation_context
from optimizer.search.evaluation.prompt_sets import search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.labels import NAIVE, STACK
from optimizer.search.observer import Silent
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import trials, watch_evaluations

MODELS = ("diffusers", "transformers", "open_clip", "torchvision", "torchmetrics", "peft", "accelerate")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sources")
    return [str(kohya_file(folder / f"{n}.safetensors", random_parts(LINEAR, rank=2 + i, seed=i)).path) for i, n in enumerate(("a", "b"))]


def options(files: list[str], out: Path, base: str = "fake:size=8", **changes: Any) -> dict[str, Any]:
    return {"sources": files, "base": base, "budget": 6, "own": 2, "joint": 2, "confirm": 4, "out": out} | changes


def test_a_run_ships_a_better_merge_than_the_naive_one(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    render = FakeRenderer.render

    def counted(renderer: FakeRenderer, prompts: Sequence[Prompt], candidate: Candidate | None = None, **options: Any) -> Tensor:
        drawn.append(len(prompts))
        return render(renderer, prompts, candidate, **options)

    monkeypatch.setattr(FakeRenderer, "render", counted)
    study = optimize(**options(files, tmp_path))
    assert study.complete
    assert len(study.trials) == 4 + 6
    assert (tmp_path / "report.html").is_file()
    assert study.best is not None
    assert load_adapter(study.best).modules.keys() == LINEAR.keys()
    verdict = study.summary.verdict
    assert verdict is not None
    # Nothing is drawn twice: on two own prompts of each source and two joint ones base, sources and merges; on twice as many the finalists.
    recipes = {t.evaluation.recipe_hash for t in study.trials if t.evaluation}
    assert len(recipes) >= 9
    assert drawn == [6] * (3 + len(recipes)) + [12] * (1 + len(verdict.rows))
    assert all(row.drift is None for row in verdict.rows.values())  # no trigger: every prompt asks for both
    assert verdict.rows[verdict.winner].weakest > verdict.rows[NAIVE].weakest
    scores = {t.label or str(t.number): t.evaluation.score for t in study.trials if t.evaluation}
    assert max(scores.values()) > scores[NAIVE] > max(scores["a alone"], scores["b alone"])
    assert not study.summary.warnings


@pytest.mark.parametrize(("triggers", "kept"), [(("aa", "bb"), "the base"), (("", "bb"), "a alone")])
def test_the_drift_without_a_trigger_is_told(files: list[str], tmp_path: Path, triggers: tuple[str, str], kept: str) -> None:
    verdict = optimize(**options(files, tmp_path, triggers=triggers)).summary.verdict
    assert verdict is not None
    assert {label for label, row in verdict.rows.items() if row.drift is not None} == {verdict.winner, STACK}
    assert verdict.remarks[-1].startswith(f"On 4 prompts without a trigger, it differs from {kept} by ")


def test_the_search_finds_more_than_the_baselines(files: list[str], tmp_path: Path) -> None:
    study = optimize(**options(files, tmp_path, budget=12, methods=("linear",)))
    scores = {t.label or str(t.number): t.evaluation.score for t in study.trials if t.evaluation}
    assert max(scores.values()) > max(scores[STACK], scores[NAIVE])


def test_a_run_repeats_itself_with_its_failures(files: list[str], tmp_path: Path) -> None:
    base = "fake:size=4&fail=0.3&oom=0.3"
    first, second = (optimize(**options(files, tmp_path / name, base, budget=10, seed=2)) for name in ("x", "y"))
    assert trials(first.trials) == trials(second.trials)
    assert [t.error for t in first.trials] == [t.error for t in second.trials]
    reasons = {t.error.partition(":")[0].partition(" pictures")[0] for t in first.trials if t.evaluation is None}
    assert reasons == {"6 of 6", "OutOfMemoryError"}
    assert all(t.evaluation for t in first.trials[:2])


def test_a_slower_base_is_the_same_study(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = optimize(**options(files, tmp_path, budget=2))
    evaluated = watch_evaluations(monkeypatch)
    with pytest.raises(StudyError, match=r"base: fake:fail=0\.0&oom=0\.0&size=8 → fake:fail=0\.5&oom=0\.0&size=8"):
        optimize(**options(files, tmp_path, "fake:size=8&fail=0.5", budget=2))
    assert evaluated == []
    slow = optimize(**options(files, tmp_path, "fake:latency=0.01&size=8", budget=3))
    assert trials(slow.trials)[:6] == trials(first.trials)
    assert len(slow.trials) == 7


def test_the_fingerprint_knows_everything_but_the_latency(files: list[str], tmp_path: Path) -> None:
    contexts = []
    for base in ("fake:", "fake:latency=3", "fake:size=16&latency=0.1", "fake:size=8", "fake:oom=0.1"):
        session = prepare(Config.of(**options(files, tmp_path, base)), Silent())
        prompts = search_prompts(session.config, session.sources)
        drawn = session.drawing_context(prompts)
        contexts.append(evaluation_context(drawn, session.embedder.name, objectives=session.objectives))
    assert contexts[0] == contexts[1] == contexts[2]
    assert len({str(context) for context in contexts}) == 3
    assert contexts[0]["embedder"] == "fake:"


def test_a_folder_of_that_name_is_not_taken_for_it(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fake:").mkdir()
    found = checked(Config.of(**options(files, tmp_path, "fake:", embedder="fake:"))).resolved()
    assert (found.inputs.base, found.protocol.embedder) == ("fake:", "fake:")


def test_settings_that_cannot_be_used_are_told_before_anything_is_written(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["--sources", *files, "--base", "fake:speed=1", "--out", str(tmp_path / "o")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("optimize: --base: a fake base has no setting 'speed' — write fake: with any of latency=SECONDS, ")
    with pytest.raises(UsageError, match="--embedder: fake:x: the fake embedder has no settings"):
        optimize(**options(files, tmp_path / "o", embedder="fake:x"))
    assert not (tmp_path / "o").exists()


def test_no_library_of_models_is_imported(files: list[str], tmp_path: Path) -> None:
    words = ["--sources", *files, "--base", "fake:size=4", "--budget", "3", "--out", str(tmp_path)]
    program = f"""
import sys
from optimizer.cli.main import execute
code = execute({words!r})
print(code, [name for name in {MODELS!r} if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "0 []", found.stderr
