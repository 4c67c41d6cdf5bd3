"""``optimize status``: what it prints on a terminal and in a pipe, while a run works and after it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from optimizer.cli.main import execute
from optimizer.cli.tables.status import _time, status_page
from optimizer.search.status import StudyStatus, WorkerStatus

RUN = [sys.executable, "-m", "optimizer"]
WORKER = WorkerStatus(name="n", host="[bold]h", pid=7, state="working", trial=3, finished=2, failed=0, pictures_per_second=1.5, seen=100.0)


def status(**changes: object) -> StudyStatus:
    scores = {"best": 0.5, "stack": 0.25, "naive": None}
    counts = {"recipes": 1, "budget": 4, "failed": 1, "trials": 8, "ended": 5, "running": 1}
    known = {"study": "a + b", "finished": False, "file": "", "resume": "", "state": "searching", "best_label": "trial 4"}
    return StudyStatus.model_validate(scores | counts | known | changes)


def test_times_read_well() -> None:
    assert [_time(s) for s in (None, 5.2, 300.0, 9000.0)] == ["–", "5 s", "5 min", "2.5 h"]


def test_a_page_of_facts(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Console(width=100).print(status_page(status(eta=300.0, workers=(WORKER,), evaluations=3)))
    out = capsys.readouterr().out
    facts = [
        "   trials  5 of 8, 1 running, 1 failed",
        "     best  0.500 (trial 4)",
        "    naive  –",
        "      ETA  5 min",
        "   stored  3 evaluations",
    ]
    assert set(facts) <= {line.rstrip() for line in out.splitlines()}
    assert [cell.strip() for cell in out.splitlines()[-2].strip("│").split("│")] == [
        *("[bold]h 7", "working", "3", "2", "0", "1.50", "2 min ago")
    ]


@pytest.mark.parametrize("words", [[], ["x", "--study", "y"], ["--study", "y"], ["--storage", "postgresql://h/d"]])
def test_which_study_is_not_said(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTIMIZE_STORAGE", raising=False)
    assert execute(["status", *words]) == 2
    message = "optimize: which study is meant cannot be told — give its directory, or --storage and --study together\n"
    assert capsys.readouterr().err == message


def test_watching_a_run_from_its_beginning_to_its_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--sources", "demo:neon", "demo:octopus", "--base", "fake:latency=0.3", "--budget", "3", "--out", str(tmp_path / "s")]
    words += ["--own", "1", "--joint", "1", "--confirm", "1", "--finalists", "1"]
    with subprocess.Popen([*RUN, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr
        assert run.stderr.readline().startswith("this run needs about ")
        assert run.stderr.readline().startswith("searched: weights 0.1 to 1.3 of neon, octopus; ")
        assert run.stderr.readline() == "search: 7 trials\n"
        assert execute(["status", str(tmp_path / "s"), "--watch", "--json"]) == 0
        assert run.wait() == 0
    looks = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert looks[0]["state"] in ("loading", "searching")
    assert looks[0]["workers"][0]["state"] in ("loading", "working")
    assert [look["ended"] for look in looks] == sorted(look["ended"] for look in looks)
    assert (looks[-1]["state"], looks[-1]["ended"], looks[-1]["finished"]) == ("done", 7, True)
    assert looks[-1]["file"].startswith("best/")
    assert execute(["status", str(tmp_path / "s"), "--watch"]) == 0
    assert capfd.readouterr().out.startswith("done 7 of 7 · best ")
