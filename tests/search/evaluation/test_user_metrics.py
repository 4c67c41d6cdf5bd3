"""Metrics of the user in whole runs on a fake base: columns, terms, constraints, identity, and what is refused before anything is drawn."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from optimizer.cli.main import execute
from optimizer.search.config import Config
from optimizer.search.config.metric import parse_metric
from optimizer.search.evaluation.session import prepare
from optimizer.search.labels import NAIVE, STACK
from optimizer.search.observer import Silent
from optimizer.search.trials.repair import repair
from optimizer.search.workers.storage import open_local_study
from studies import StudyDirectory, load_summary
from tests.files import LINEAR, kohya_file, random_parts

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = """
from pathlib import Path
import torch

with Path("imported").open("a") as file:
    file.write("x")

def light(pictures, prompts, references):  # one value a picture, in [0, 1]
    return pictures.double().mean(dim=(1, 2, 3)) / 255

def contrast(pictures, prompts, references):
    return float(pictures.double().std()) / 255

contrast.higher_is_better = True
contrast.plot_lower_bound, contrast.plot_upper_bound = 0.0, 1.0
calls = 0

def sometimes(pictures, prompts, references):
    global calls
    calls += 1
    return float("nan") if calls == 9 else 1.0

def never(pictures, prompts, references):
    return float("nan")

def few(pictures):
    return 1.0

def six(pictures, prompts, references):
    return float(len(pictures) == 6)

def raises(pictures, prompts, references):
    raise RuntimeError("no such device")

number = 3

class Plain:
    pass
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two sources and a module of metrics, in which the command is run; its modules are forgotten afterwards."""
    for index, name in enumerate("ab"):
        kohya_file(tmp_path / f"{name}.safetensors", random_parts(LINEAR, rank=2 + index, seed=index))
    (tmp_path / "metrics_of_a_test.py").write_text(FILE)
    (tmp_path / "broken_metrics_of_a_test.py").write_text("import no_such_package_at_all")
    (tmp_path / "wrong_metrics_of_a_test.py").write_text("raise ValueError('by design')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("metrics_of_a_test", "broken_metrics_of_a_test", "wrong_metrics_of_a_test"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


SUBJECTS = "[a house by a river, a woman reading a book, a cat on a chair, an old car, a tree on a hill, a bowl of fruit]"
SETTINGS = "[in a forest, on a city street, on a beach at sunset, in a kitchen, in the snow, in front of a plain wall]"


def words(*metrics: str, out: str = "study", budget: int = 3) -> list[str]:
    options = ["--base", "fake:size=8", "--budget", str(budget), "--own", "2", "--joint", "2", "--confirm", "2", "--out", out]
    return ["--sources", "a.safetensors", "b.safetensors", *options, *(["--metric", *metrics] if metrics else [])]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("light", "got 'light' — write NAME=MODULE:NAME_IN_MODULE[:RULE], such as tv=torchmetrics.image:TotalVariation"),
        ("a b=m:n", "got 'a b=m:n' — write NAME=MODULE:NAME_IN_MODULE[:RULE]"),
        ("x=metrics_of_a_test:light:soon", "'soon' in 'x=metrics_of_a_test:light:soon' is no rule — leave it out for a column, or give"),
        ("x=metrics_of_a_test:light:0", "'0' in 'x=metrics_of_a_test:light:0' is no rule"),
        ("x=metrics_of_a_test:light:>=nan", "'>=nan' in 'x=metrics_of_a_test:light:>=nan' is no rule"),
        ("artifacts=metrics_of_a_test:light", "an objective has the name artifacts already — give the metric another name"),
        (
            "x=nowhere_at_all:light",
            "x: there is no module nowhere_at_all — install it, or run the command in the folder of nowhere_at_all.py",
        ),
        ("x=torchmetrics.nowhere:light", "x: there is no module torchmetrics.nowhere — "),
        ("x=broken_metrics_of_a_test:light", "x: broken_metrics_of_a_test needs the module no_such_package_at_all — install it"),
        ("x=wrong_metrics_of_a_test:light", "x: wrong_metrics_of_a_test cannot be imported: ValueError: by design — correct it"),
        ("x=metrics_of_a_test:dark", "x: there is no dark in metrics_of_a_test — check the name"),
        ("x=metrics_of_a_test:number", "x: metrics_of_a_test:number is of type int — name a class of torchmetrics, or a function"),
        (
            "x=metrics_of_a_test:Plain",
            "x: metrics_of_a_test:Plain is the class Plain, no Metric — name a class of torchmetrics, or a function",
        ),
        (
            "x=metrics_of_a_test:light:2",
            "x: whether more of it is better is not known, so that it cannot be a term of the score — make it a",
        ),
        ("x=metrics_of_a_test:never", "the metric x is nan for 1 of 1 values, on pictures of noise, 8 × 8 — look at the pictures"),
        (
            "x=metrics_of_a_test:few",
            "the metric x fails: TypeError: few() takes 1 positional argument but 3 were given, on pictures of noise",
        ),
        (
            "x=metrics_of_a_test:raises",
            "the metric x fails: RuntimeError: no such device, on pictures of noise, 8 × 8 — correct it, or leave",
        ),
        (
            "x=torchmetrics.classification:Accuracy",
            "x: torchmetrics.classification:Accuracy: its constructor needs task — name an instance",
        ),
        ("x=torchmetrics.image:VisualInformationFidelity", "the metric x fails: RuntimeError: Calculated padded input size"),
        (
            "x=torchmetrics.image.kid:KernelInceptionDistance",
            "x: torchmetrics.image.kid:KernelInceptionDistance needs a package that is missing: ModuleNotFoundError: Kernel Inception",
        ),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_is_drawn(
    place: Path, metric: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(words(metric)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"optimize: --metric: {message}")
    assert err.count("\n") == 1
    assert not (place / "study").exists()


def test_weights_that_cannot_be_had(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "metrics_of_a_test.py").write_text(
        "import torch\nfrom torchmetrics import Metric\nfrom urllib.error import URLError\n\n"
        "class Big(Metric):\n    def __init__(self):\n        raise URLError('no route to host')\n"
        "    def update(self, img): ...\n    def compute(self): ...\n"
    )
    assert execute(words("x=metrics_of_a_test:Big")) == 2
    told = capsys.readouterr().err
    assert "x: metrics_of_a_test:Big cannot get its weights: URLError: <urlopen error no route to host> — connect to the network" in told


def test_two_of_one_name_and_several_flags(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = "x=metrics_of_a_test:light", "x=metrics_of_a_test:contrast"
    assert execute([*words(), "--metric", first, "--metric", second]) == 2
    assert capsys.readouterr().err == "optimize: --metric: two metrics have the name x — rename one of them\n"
    (place / "run.yaml").write_text(yaml.safe_dump({"metric": [first, second]}))
    assert execute([*words(), "--config", "run.yaml"]) == 2
    assert capsys.readouterr().err == "optimize: --metric: two metrics have the name x — rename one of them\n"
    assert not (place / "imported").exists()


def test_columns_and_terms(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(words(out="plain")) == 0
    metrics = ("light=metrics_of_a_test:light", "tv=torchmetrics.image:TotalVariation", "contrast=metrics_of_a_test:contrast:0.5")
    capsys.readouterr()
    assert execute(words(*metrics)) == 0
    printed = capsys.readouterr().out
    assert "contrast weight 0.5" in printed
    plain, found = rows(place / "plain"), rows(place / "study")
    for before, after in list(zip(plain, found, strict=True))[:4]:  # the baselines are those of the run without metrics
        value = float(after["metric:contrast:value"])
        assert float(after["metric:contrast:factor"]) == pytest.approx(value**0.5)
        assert float(after["score"]) == pytest.approx(float(before["score"]) * value**0.5)
        assert 0 < float(after["metric:light:value"]) < 1
        assert float(after["metric:tv:value"]) > 0
    assert not any(column.startswith(("metric:kernel_distance", "metric:similarity")) for column in found[0])
    summary = load_summary(place / "study")
    assert summary.metrics == {"light": "", "tv": "", "contrast": "weight 0.5"}
    assert "times contrast" in (place / "study" / "report.html").read_text()


def bound_between(out: Path, name: str) -> tuple[float, str]:
    """A lower bound that the better of stack and naive merge misses and others satisfy, and the name of that merge.

    Later trials would not do: the sampler proposes others once it knows the constraint.
    """
    merges = [row for row in rows(out) if row["label"] in (STACK, NAIVE)]
    best = max(merges, key=lambda row: float(row["score"]))
    above = sorted(
        float(r[f"metric:{name}:value"]) for r in rows(out) if float(r[f"metric:{name}:value"]) > float(best[f"metric:{name}:value"])
    )
    assert above
    return (above[0] + float(best[f"metric:{name}:value"])) / 2, best["label"]


def test_a_merge_that_misses_a_constraint_never_wins(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    column = "light=metrics_of_a_test:light"
    (place / "words.yaml").write_text(f"subjects: {SUBJECTS}\nsettings: {SETTINGS}\n")  # the bound below suits pictures of these prompts
    assert execute([*words(column, out="column"), "--prompts", "words.yaml"]) == 0
    bound, best = bound_between(place / "column", "light")
    capsys.readouterr()
    assert execute([*words(f"{column}:>={bound}"), "--prompts", "words.yaml"]) == 0
    out, err = capsys.readouterr()
    assert f"{best}: " in err
    assert ", misses light by 0.0" in err
    summary = load_summary(place / "study")
    missing = {r.label or f"trial {r.number}" for r in summary.trials if r.evaluation and not r.evaluation.feasible}
    assert best in missing
    assert summary.verdict is not None
    winner = summary.verdict.rows[summary.verdict.winner]
    assert summary.verdict.winner not in missing
    assert not winner.missed
    assert winner.metrics["light:value"] >= bound
    assert all(label in missing or row.metrics["light:value"] < bound for label, row in summary.verdict.rows.items() if row.missed)
    assert {label for label, row in summary.verdict.rows.items() if row.missed and "alone" not in label} <= missing | {STACK}
    assert "✗" in out
    report = (place / "study" / "report.html").read_text()
    assert "misses light by" in report
    assert "is marked ✗ and never exported" in report
    check_constraints(place / "study", bound)
    (place / "study" / "journal.log").unlink()
    repair(StudyDirectory(place / "study"))
    check_constraints(place / "study", bound)
    assert execute(["status", "study", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best_label"] not in missing


def check_constraints(out: Path, bound: float) -> None:
    """Optuna has the constraint of every trial."""
    values = {int(row["number"]): float(row["metric:light:value"]) for row in rows(out)}
    shared = open_local_study(StudyDirectory(out), create=False)
    try:
        found = {t.number: t.constraints for t in shared.study.get_trials()}
    finally:
        shared.close()
    assert found == {number: {"light": pytest.approx(bound - value)} for number, value in values.items()}


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_the_sampler_learns_the_constraints(place: Path, sampler: str) -> None:
    metrics = ("light=metrics_of_a_test:light:<=0.502", "contrast=metrics_of_a_test:contrast:<=0.3")
    assert execute([*words(*metrics, budget=10), "--sampler", sampler]) in (0, 3)
    assert len(rows(place / "study")) == 14
    shared = open_local_study(StudyDirectory(place / "study"), create=False)
    assert all(
        set(t.constraints) == {"light", "contrast"} for t in shared.study.get_trials() if t.state == optuna.trial.TrialState.COMPLETE
    )
    shared.close()


def test_nothing_feasible(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(words("light=metrics_of_a_test:light:>=2", "contrast=metrics_of_a_test:contrast")) == 3
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"optimize: {place / 'study'}: no merge satisfies all constraints on the search's prompts; ")
    assert "comes nearest, and misses light by 1.4" in told or "comes nearest, and misses light by 1.5" in told
    assert told.endswith(" — relax the constraint (--metric), or try more recipes (--budget), see report.html")
    assert "no merge satisfies light &gt;= 2." in (place / "study" / "report.html").read_text()


def test_nothing_feasible_on_fresh_prompts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*words("six=metrics_of_a_test:six:>=0.5")]
    command[command.index("--confirm") + 1] = "3"
    assert execute(command) == 3  # six pictures in the search, nine afterwards
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("optimize: no merge satisfies all constraints on fresh prompts; ")
    assert "comes nearest, and misses six by 0.5 — relax the constraint" in told
    assert (place / "study" / "report.html").exists()
    assert not list((place / "study").glob("best/*.safetensors"))


def test_a_value_that_is_not_finite_fails_its_trial_only(place: Path) -> None:
    assert execute(words("some=metrics_of_a_test:sometimes")) == 0
    failed = [row["error"] for row in rows(place / "study") if row["state"] == "FAIL"]
    assert failed == ["the metric some is nan for 1 of 1 values — look at the pictures"]


def test_code_is_imported_only_if_it_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metric = "light=metrics_of_a_test:light:>=0.1"
    assert execute(words(metric)) == 0
    (place / "imported").unlink()
    del sys.modules["metrics_of_a_test"]
    capsys.readouterr()
    assert execute(["resume", "study", "--budget", "4"]) == 2
    assert capsys.readouterr().err == (
        "optimize: --metric: the study measures with code that is imported only if you name it — "
        "if you trust it, add --metric 'light=metrics_of_a_test:light:>=0.1'\n"
    )
    assert execute(["worker", "study"]) == 2
    assert execute(["status", "study"]) == execute(["report", "study"]) == 0
    assert execute(["merge", "study", "--method", "soup"]) == 2
    assert not (place / "imported").exists()
    assert execute(["resume", "study", "--budget", "4", "--metric", metric]) == 0
    assert len(rows(place / "study")) == 8
    assert (place / "imported").exists()


def test_a_study_is_bound_to_its_metrics(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metric = "light=metrics_of_a_test:light"
    assert execute(words(metric)) == 0
    capsys.readouterr()
    assert execute(words(f"{metric}:>=0.1")) == 2
    assert "(metric: ['light=metrics_of_a_test:light'] → ['light=metrics_of_a_test:light:>=0.1'])" in capsys.readouterr().err
    (place / "metrics_of_a_test.py").write_text(FILE + "\n# another version\n")
    del sys.modules["metrics_of_a_test"]
    assert execute(words(metric, budget=4)) == 2
    assert "what the study here rests on has changed since it began (metric light: " in capsys.readouterr().err


def test_versions(place: Path) -> None:
    metrics = ("tv=torchmetrics.image:TotalVariation", "light=metrics_of_a_test:light:>=0.25", "sum=math:fsum")
    assert parse_metric(metrics[1]).rule == ">= 0.25"
    import torchmetrics

    options: dict[str, Any] = {"sources": ["a.safetensors", "b.safetensors"], "base": "fake:size=8"}
    session = prepare(Config.of(**options, metric=metrics[:2]), Silent())
    tv, light = session.objectives[-2:]
    assert tv.described() == {  # type: ignore[attr-defined]
        **{"target": "torchmetrics.image:TotalVariation", "version": f"torchmetrics {torchmetrics.__version__}"},
        **{"rule": "''", "calls": 1},
    }
    described = light.described()  # type: ignore[attr-defined]
    assert described["rule"] == "Constraint(bound=0.25, at_least=True)"
    assert len(described["version"]) == 64


def test_workers_measure_too(place: Path) -> None:
    command = [sys.executable, "-m", "optimizer", *words("light=metrics_of_a_test:light:>=0.1", budget=4), "--workers", "2"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "ended with code" not in found.stderr
    assert all(row["metric:light:value"] for row in rows(place / "study"))
