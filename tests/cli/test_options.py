"""Options: where they come from, and that asking for help costs no second."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from optimizer.cli.main import execute
from optimizer.search.config import Config

HEAVY = ["torch", "diffusers", "transformers", "optuna", "pandas", "open_clip", "PIL", "numpy"]
COMMANDS = [[], ["resume"], ["status"], ["report"], ["demo"], ["inspect"], ["ls"]]


def test_flag_wins_over_environment_over_file_over_default(
    asked: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("sources: [a, b]\nbase: sd\nbudget: 11\nseed: 12\nown: 13\nrank: null\ntimeout: 2h\nforce: true\ntriggers: ['', x y]\n")
    monkeypatch.setenv("OPTIMIZE_BUDGET", "21")
    monkeypatch.setenv("OPTIMIZE_SEED", "22")
    assert execute(["--config", str(file), "--budget", "31"]) == 0
    assert execute([f"--config={file}", "--sources", "c", "d", "e"]) == 0
    assert execute(["--sources", "c", "d"]) == 0
    monkeypatch.setenv("OPTIMIZE_SOURCES", "f g")
    monkeypatch.delenv("OPTIMIZE_BUDGET")
    assert execute(["--joint", "2"]) == 0
    assert capsys.readouterr() == ("", "")
    first, second, third, fourth = asked
    assert (first.search.budget, first.search.seed, first.protocol.own, first.protocol.joint) == (31, 22, 13, 8)
    assert (first.inputs.sources, first.inputs.force, first.inputs.triggers) == (("a", "b"), True, ("", "x y"))
    assert (first.output.rank, first.search.timeout) == (None, 7200.0)
    assert (second.search.budget, second.inputs.sources) == (21, ("c", "d", "e"))
    assert (third.protocol.own, third.inputs.base, third.search.budget) == (4, "", 21)
    assert (fourth.inputs.sources, fourth.search.budget, fourth.protocol.joint) == (("f", "g"), 50, 2)


def test_a_saved_configuration_is_a_configuration_file(asked: list[Config], tmp_path: Path) -> None:
    config = Config.of(sources=("a", "b"), base="sd", triggers=("", "zig"), methods=("linear",), timeout="8h", rank=4, guidance=2.5)
    (tmp_path / "study.yaml").write_text(config.to_yaml())
    assert execute(["--config", str(tmp_path / "study.yaml")]) == 0
    assert asked == [config]


def test_help_and_version_import_nothing_heavy() -> None:
    program = f"""
import sys
from optimizer.cli.main import execute
codes = [execute([*command, "--help"]) for command in {COMMANDS!r}] + [execute([]), execute(["--version"])]
print(codes, [name for name in {HEAVY!r} if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stderr == ""
    lines = found.stdout.splitlines()
    assert lines[-1] == f"{[0] * 9} []"
    assert lines[-2] == version("multilora-optimizer")
    for part in ("--sources", "--config FILE.yaml", "--timeout", "resume", "status", "report", "demo", "merge", "inspect", "ls"):
        assert part in found.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([*command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Usage: optimize {' '.join(command)}" if command else "Examples:\n  optimize --sources ")
    assert err == ""


def test_help_shows_defaults_as_one_would_type_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert execute(["--help"]) == 0
    shown = re.findall(r"\[default: ([^]]*)\]", capsys.readouterr().out)
    assert {"50", "0", "study", "distill ssr ties dare_linear dare_ties magnitude_prune"} <= set(shown)
    assert not {"", "()", "False", "None", '""'} & set(shown)
