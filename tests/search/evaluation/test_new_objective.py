"""A new objective is one file and one line: a search from the command line measures with it, and the confirmation uses it."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from objectives import Objective, resamples, table
from objectives.scorer import AnyObjective
from optimizer import optimize
from optimizer.cli.main import execute
from optimizer.errors import StudyError
from optimizer.search.config import Config
from optimizer.search.evaluation.comparison import Confirmation
from optimizer.search.evaluation.confirmation import confirm
from optimizer.search.evaluation.fingerprint import evaluation_context, study_inputs
from optimizer.search.evaluation.prompt_sets import confirmation_prompts, search_prompts
from optimizer.search.evaluation.session import Session, prepare
from optimizer.search.observer import Silent
from studies import StudySummary, load_summary
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import After, trials

FILE = """
from objectives import Outcome, Objective, weighted_mean
import torch

class Brightness(Objective):
    name, version = "brightness", 1

    def reference(self, baselines):
        return torch.stack([self.measure(pictures, None) for pictures in baselines.all]).mean(dim=0)

    def measure(self, pictures, reference):
        return pictures.images.double().mean(dim=(1, 2, 3)) / 255

    def compare(self, measurement, reference, counts=None):
        distance = weighted_mean((measurement - reference).abs(), counts)
        return Outcome(factor=1 / (1 + 20 * distance), values={"distance": distance})
"""


@pytest.fixture
def brightness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnyObjective:
    """A new objective, from a file of its own."""
    (tmp_path / "brightness_of_a_test.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    found = importlib.import_module("brightness_of_a_test").Brightness()
    assert isinstance(found, Objective)
    return found


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    files = [str(kohya_file(tmp_path / f"{n}.safetensors", random_parts(LINEAR, rank=2 + i, seed=i)).path) for i, n in enumerate("ab")]
    return {"sources": files, "base": "fake:size=8", "budget": 3, "own": 2, "joint": 2, "confirm": 3, "out": tmp_path / "study"}


def arguments(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", *(value if name == "sources" else [str(value)]))]


def light(files: tuple[str, ...] | list[Path], folder: Path) -> np.ndarray:
    """Mean brightness of each picture, in [0, 1]."""
    return np.array([np.asarray(Image.open(folder / file)).mean() / 255 for file in files])


def distance(files: tuple[str, ...], references: list[list[Path]], folder: Path) -> float:
    return float(np.abs(light(files, folder) - np.mean([light(each, folder) for each in references], axis=0)).mean())


def scored(shares: list[float], artifacts: float, factor: float) -> float:
    return float((min(shares) * np.prod(shares) ** (1 / len(shares))) ** 0.5 * 8 / (8 + artifacts) * factor)


def test_the_search_and_the_confirmation_measure_with_it(
    options: dict[str, Any], brightness: AnyObjective, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table, "OBJECTIVES", (*table.OBJECTIVES, brightness))
    monkeypatch.setenv("COLUMNS", "200")
    assert execute([*arguments(options), "--keep-images", "all"]) == 0
    printed = capsys.readouterr().out
    assert "brightness" in printed
    assert "brightness:distance" not in printed
    out = Path(options["out"])
    with (out / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    summary = load_summary(out)
    references = [sorted((out / "images" / "baselines" / name).glob("*.png")) for name in ("base", "a", "b")]
    for row, trial in zip(rows, summary.trials, strict=True):
        assert trial.evaluation is not None
        found = distance(trial.evaluation.images, references, out)
        factor = float(row["metric:brightness:factor"])
        assert trial.evaluation.metrics["brightness:distance"] == float(row["metric:brightness:distance"]) == pytest.approx(found)
        assert factor == pytest.approx(1 / (1 + 20 * found))
        assert 0 < factor < 1
        assert float(row["score"]) == pytest.approx(
            scored([float(row["preservation:a"]), float(row["preservation:b"])], float(row["artifacts"]), factor)
        )
    check_verdict(summary, out)
    assert "times brightness" in (out / "report.html").read_text()


def check_verdict(summary: StudySummary, out: Path) -> None:
    """The confirmed rows have the values of their pictures, and are ranked by a score that has the factor in it."""
    assert summary.verdict is not None
    columns = {column.label: column.files for column in summary.columns}
    references = [[out / file for file in columns[name]] for name in ("base", "a alone", "b alone")]
    values = []
    for label, row in summary.verdict.rows.items():
        files = columns.get(label) or columns.get(f"best ({label})")
        if files:
            assert row.metrics["brightness:distance"] == pytest.approx(distance(files, references, out))
        assert row.artifacts is not None
        if label not in ("a alone", "b alone"):
            values.append(scored(list(row.sources.values()), row.artifacts, row.metrics["brightness:factor"]))
    assert values == sorted(values, reverse=True)
    assert len(values) >= 3


def test_its_uncertainty_counts_in_the_confirmation(
    options: dict[str, Any], brightness: AnyObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = optimize(**options)
    plain = confirmed(options, study.trials)
    monkeypatch.setattr(table, "OBJECTIVES", (*table.OBJECTIVES, brightness))
    found = confirmed(options, study.trials)
    before = {c.label: c for c in plain.contenders}
    assert found.base is not None
    references = np.mean([values(images) for images in (found.base, *(c.images for c in found.contenders if c.recipe is None))], axis=0)
    session = prepare(Config.of(**options), Silent())
    asked = session.evaluator(confirmation_prompts(session.config, session.sources), Silent()).asked
    counts = resamples(asked, count=4000, seed=0).int().numpy()
    for contender in found.contenders:
        apart = np.abs(values(contender.images) - references)
        factors = [1 / (1 + 20 * np.repeat(apart, row).mean()) for row in counts]
        np.testing.assert_allclose(contender.samples, before[contender.label].samples.numpy() * factors, rtol=1e-6)
        assert contender.score == pytest.approx(before[contender.label].score / (1 + 20 * apart.mean()))
        assert np.std(factors) > 1e-4


def values(images: Any) -> np.ndarray:
    return np.asarray(images.numpy().mean(axis=(1, 2, 3)) / 255)


def confirmed(options: dict[str, Any], records: Any) -> Confirmation:
    session = prepare(Config.of(**options), Silent())
    evaluator = session.evaluator(confirmation_prompts(session.config, session.sources), Silent(), final=True)
    return confirm(records, evaluator, count=2, seed=0, observer=Silent())


def test_a_study_goes_on_only_with_its_table(
    options: dict[str, Any], brightness: AnyObjective, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    standard = table.OBJECTIVES
    optimize(**options, observer=After(1, rendering=False))
    monkeypatch.setattr(table, "OBJECTIVES", (*standard, brightness))
    assert execute(arguments(options)) == 2
    assert "(scorer: version 5 → version 5, with the objective brightness version 1) — put it back, or" in capsys.readouterr().err
    other = options | {"out": options["out"].with_name("other")}
    begun = optimize(**other, observer=After(1, rendering=False))
    monkeypatch.setattr(table, "OBJECTIVES", standard)
    with pytest.raises(StudyError, match=r"\(scorer: version 5, with the objective brightness version 1 → version 5\)"):
        optimize(**other)
    monkeypatch.setattr(type(brightness), "version", 2)
    monkeypatch.setattr(table, "OBJECTIVES", (*standard, brightness))
    with pytest.raises(StudyError, match="with the objective brightness version 1 → version 5, with the objective brightness version 2"):
        optimize(**other)
    monkeypatch.setattr(type(brightness), "version", 1)
    assert trials(optimize(**other).trials)[:1] == trials(begun.trials)


def test_the_standard_table_has_the_key_of_its_version(options: dict[str, Any], brightness: AnyObjective) -> None:
    session = prepare(Config.of(**options), Silent())
    preservation, separation, artifacts, familiarity = session.objectives

    def scorer(*objectives: AnyObjective) -> tuple[object, str]:
        context = context_of(session, objectives)
        return context["scorer"], study_inputs(context, session.sources, session.space(3))["scorer"]

    assert scorer(*session.objectives) == scorer(*session.objectives[::-1]) == (5, "version 5")
    later = type("Later", (type(artifacts),), {"version": 3})()
    assert scorer(preservation, separation, later, familiarity, brightness) == (
        {"version": 5, "objectives": {"preservation": 3, "separation": 1, "artifacts": 3, "familiarity": 2, "brightness": 1}},
        "version 5, with the objective artifacts version 3, with the objective brightness version 1",
    )
    assert scorer(preservation, separation, familiarity)[1] == "version 5, without the objective artifacts"


def context_of(session: Session, objectives: tuple[AnyObjective, ...]) -> dict[str, object]:
    drawn = session.drawing_context(search_prompts(session.config, session.sources))
    return evaluation_context(drawn, session.embedder.name, objectives=objectives)
