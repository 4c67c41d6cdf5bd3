"""docs/objectives.md: its example runs on the demo world as it stands, its tables name what there is, and its commands parse."""

from __future__ import annotations

import csv
import math
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from objectives import table
from optimizer.cli.main import execute
from optimizer.search.config.metric import parse_metrics
from optimizer.search.config.protocol import Protocol
from optimizer.search.evaluation.aims import Aims
from studies import load_summary

PAGE = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")
SMALL = {"--budget": "1", "--own": "1", "--joint": "1", "--confirm": "1", "--finalists": "1", "--steps": "2", "--device": "cpu"}


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def test_every_objective_is_on_the_page() -> None:
    assert all(f"| `{objective.name}` |" in PAGE for objective in table.OBJECTIVES)
    assert all(f"| `metric:{objective.name}:" in PAGE for objective in table.COLUMNS)


def test_the_yaml_is_that_of_the_command() -> None:
    words = shlex.split(block("sh").replace("\\\n", " "))
    in_file = yaml.safe_load(block("yaml"))["metric"]
    assert set(parse_metrics(in_file)) <= set(parse_metrics(words[words.index("--metric") + 1 :]))


def test_the_example_of_aims_can_be_run() -> None:
    (line,) = re.findall(r"^    optimize (--sources .* --priority .*)$", PAGE, re.MULTILINE)
    words = line.split()
    place = words.index("--priority")
    assert words[place + 2] == "--keep"
    names = [word.removeprefix("demo:") for word in words if word.startswith("demo:")]
    aims = Aims.of(Protocol(priority=(words[place + 1],), keep=(words[place + 3],)), names)
    assert (aims.priorities, aims.targets) == ({"neon": 1.0, "octopus": 2.0}, {"neon": 0.5})
    assert "`pareto: true`" in PAGE
    (lists,) = re.findall(r"`(priority: \[.*?\])`, `(keep: \[.*?\])`", PAGE)
    assert yaml.safe_load("\n".join(lists)) == {"priority": [words[place + 1]], "keep": [words[place + 3]]}


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_metrics.py").write_text(block("python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_metrics", raising=False)
    words = shlex.split(block("sh").replace("\\\n", " "))
    assert words.pop(0) == "optimize"
    assert execute([word for word in words if word not in ("--budget", "20")] + [word for pair in SMALL.items() for word in pair]) == 0
    assert "sharp >= 0.02" in capsys.readouterr().out
    with (tmp_path / "sharp" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert 0 < float(row["metric:sharp:value"]) < 1
        assert float(row["metric:similar:factor"]) == pytest.approx(float(row["metric:similar:value"]) ** 0.3)
        assert float(row["metric:tv:value"]) > 0
        assert math.isfinite(float(row["metric:kernel_distance:value"]))
    alone = next(row for row in rows if row["label"] == "neon alone")
    assert float(alone["metric:similarity:ssim:neon"]) == pytest.approx(1.0, abs=0.01)
    summary = load_summary(tmp_path / "sharp")
    assert summary.metrics == {"sharp": ">= 0.02", "tv": "", "similar": "weight 0.3"}
