"""``optimize completion``: scripts that complete commands and options."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from optimizer.cli.main import execute

ASK = 'source "$1"; COMP_WORDS=(optimize {words}); COMP_CWORD={at}; _optimize; printf "%s\\n" "${{COMPREPLY[@]}}"'


def completed(script: Path, *words: str) -> list[str]:
    asked = ASK.format(words=" ".join(words), at=len(words))
    return subprocess.run(["bash", "-c", asked, "bash", script], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["completion", "bash"]) == 0
    (script := tmp_path / "script").write_text(capsys.readouterr().out)
    assert completed(script, "sta") == ["status"]
    assert completed(script, "--budg") == ["--budget"]
    assert completed(script, "--sampler", "t") == ["tpe"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_scripts_that_know_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in ("resume", "merge", "completion", "--sources" if shell == "zsh" else "-l sources"))


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
