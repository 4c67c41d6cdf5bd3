"""Running: what the terminal shows, how a run is stopped and continued, and what the other commands say."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from optimizer import optimize
from optimizer.cli.display import Display
from optimizer.cli.main import execute
from optimizer.search.observer import Stopped
from studies.records import TrialRecord
from tests.search.runs import record, trials
from tests.studio import Studio

RUN = [sys.executable, "-m", "optimizer"]
TRIAL = r"\d+/\d+ (alba alone|bruno alone|stack|naive|equal 1/√N|trial \d+): -?\d\.\d{3}"


@pytest.fixture(scope="module")
def finished(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A whole run in a process of its own, without a terminal."""
    out = tmp_path_factory.mktemp("finished") / "study"
    words = [*RUN, *studio.arguments(out=out, budget=1, finalists=1)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def folder(finished: subprocess.CompletedProcess[str]) -> Path:
    return Path(finished.args[finished.args.index("--out") + 1])


def test_stderr_holds_our_own_lines_only(finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0
    lines = finished.stderr.splitlines()
    assert re.fullmatch(r"memory: \d+ MB of weights in fp32, .* free on cpu: all of them on cpu; candidates in the weights", lines[0])
    assert re.fullmatch(r"pictures: \d+ × \d+, 2 steps, guidance \d+, up to 16 at once", lines[1])
    assert re.fullmatch(r"this run needs about \d+ MB of disk, .* are free", lines[2])
    assert lines[3].startswith("there are fewer texts than pictures for joint prompts (1 for 2): texts recur with other noise, ")
    assert lines[4].startswith("searched: weights 0.1 to 1.3 of alba, bruno; steps of 0.05; methods linear, ties, ")
    assert (lines[5], lines[-1]) == ("search: 5 trials", "confirm: 10 picture sets")
    assert len(lines) == 12
    assert all(re.fullmatch(TRIAL, line) for line in lines[6:-1])


def test_stdout_holds_the_result(finished: subprocess.CompletedProcess[str]) -> None:
    lines = finished.stdout.splitlines()
    assert sum(line.startswith("The merge keeps ") for line in lines) == 1
    assert lines[-4].startswith("In score, trial 4 is ")
    assert lines[-3].startswith("On 1 prompt without a trigger, it differs from ")
    assert lines[-2].startswith(f"LoRA    {folder(finished)}/best/alba-bruno_")
    assert Path(lines[-2].split()[-1]).is_file()
    assert lines[-1] == f"report  {folder(finished)}/report.html"
    assert "stack" in finished.stdout
    assert "resume" not in finished.stdout


def test_status_report_and_resume(
    finished: subprocess.CompletedProcess[str], studio: Studio, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    study = folder(finished)
    assert execute(["status", str(study), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    scores = {"best", "stack", "naive"}
    assert {name: value for name, value in facts.items() if name not in scores | {"file", "best_label"}} == {
        **{"study": "alba + bruno", "recipes": 1, "budget": 1, "failed": 0, "finished": True, "resume": ""},
        **{"state": "done", "trials": 5, "ended": 5, "running": 0, "eta": None, "evaluations": None, "workers": []},
    }
    assert all(isinstance(facts[name], float) for name in scores)
    assert (study / facts["file"]).is_file()
    assert execute(["status", str(study)]) == 0
    assert {"   budget  1", " finished  yes", "   resume  –"} <= set(capsys.readouterr().out.splitlines())
    (study / "report.html").unlink()
    assert execute(["report", str(study)]) == 0
    assert Path(capsys.readouterr().out.strip()).read_text().startswith("<!doctype html>")
    moved = tmp_path / "moved"
    study.rename(moved)
    assert execute(["resume", str(moved), "--budget", "2"]) == 0
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 6 + 6 + 1
    assert f"report  {moved}/report.html" in out
    moved.rename(study)
    assert execute(["resume", str(study), "--budget", "0"]) == 2
    assert capsys.readouterr().err.startswith("optimize: --budget: the budget is 0")


def test_ctrl_c_once_writes_the_report_and_says_how_to_go_on_and_a_kill_costs_one_trial(studio: Studio, tmp_path: Path) -> None:
    options = {"budget": 3, "finalists": 1}
    whole = trials(optimize(**studio.options(out=tmp_path / "whole", **options)).trials)
    words = [*RUN, *studio.arguments(out=tmp_path / "study", **options)]

    def run_until(line: str, number: signal.Signals) -> subprocess.CompletedProcess[str]:
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            seen = ""
            while not seen.startswith(line):
                seen = process.stderr.readline()
                assert seen
            process.send_signal(number)
            out, err = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    killed = run_until("2/7 ", signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    stopped = run_until("5/7 ", signal.SIGINT)
    assert stopped.returncode == 130
    assert "stopping after this batch; once more to leave at once\n" in stopped.stderr
    assert stopped.stderr.endswith("stopped; everything finished is on disk\n")
    assert (tmp_path / "study/report.html").is_file()
    assert stopped.stdout.splitlines()[-1] == f"resume  optimize resume {tmp_path / 'study'}"
    assert execute(["resume", str(tmp_path / "study")]) == 0
    assert trials(optimize(**studio.options(out=tmp_path / "study", **options)).trials) == whole


class Interrupting(io.RawIOBase):
    """A stream on which Ctrl-C is pressed while the first line is on its way."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.written:
            signal.raise_signal(signal.SIGINT)
        self.written += bytes(data)
        return len(bytes(data))


def test_ctrl_c_in_the_middle_of_a_line() -> None:
    raw = Interrupting()
    display = Display(Console(file=io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True)))
    with display.watching():
        display.note("search: 3 trials")
        with pytest.raises(Stopped):
            display.pictures(0, 1)
    assert raw.written.decode().splitlines() == ["search: 3 trials", "stopping after this batch; once more to leave at once"]


@pytest.mark.parametrize("twice", [False, True])
def test_sigterm(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twice: bool, capsys: pytest.CaptureFixture[str]) -> None:
    real = Display.trial

    def trial(display: Display, found: TrialRecord) -> None:
        real(display, found)
        signal.raise_signal(signal.SIGTERM)
        if twice:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Display, "trial", trial)
    arguments = studio.arguments(out=tmp_path)
    if twice:
        with pytest.raises(SystemExit) as caught:
            execute(arguments)
        assert caught.value.code == 143
        assert not (tmp_path / "report.html").exists()
    else:
        assert execute(arguments) == 143
        assert (tmp_path / "report.html").is_file()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_timeout_ends_with_4_and_the_way_on(studio: Studio, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(studio.arguments(out=tmp_path, timeout="0.001s")) == 4
    assert capsys.readouterr().out.splitlines() == [f"report  {tmp_path}/report.html", f"resume  optimize resume {tmp_path}"]


def test_a_full_disk_or_lost_folder_is_told_in_one_line(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "evaluations"))

    monkeypatch.setattr("studies.cache.EvaluationCache.add", full)
    assert execute(studio.arguments(out=tmp_path)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"optimize: {tmp_path / 'evaluations'}: No space left on device"


def test_a_terminal_sees_one_bar_with_the_standing() -> None:
    screen = io.StringIO()
    display = Display(Console(file=screen, force_terminal=True, width=120, _environ=dict(os.environ) | {"TERM": "xterm"}))
    with display.watching():
        display.stage("search", 4)
        for number, (score, label) in enumerate([(0.9, "a alone"), (0.4, "naive"), (0.6, ""), (None, "")]):
            display.pictures(1, 1)
            display.trial(record(number, score, label))
        display.stage("confirm", 2)
        for done in (1, 2, 1, 2):
            display.pictures(done, 2)
        display.note("a [bold]note[/bold]")
    shown = screen.getvalue()
    assert "best 0.60 · naive 0.40" in shown
    assert "4/4" in shown
    assert "2/2" in shown
    assert "a [bold]note[/bold]" in shown
    assert "0.90" not in shown
