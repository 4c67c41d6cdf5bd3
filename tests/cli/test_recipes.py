"""The recipes of ``docs/scale.md``: every command parses, every file is sound, and no password stands in any."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from optimizer.cli.main import build_app

DOCS = Path(__file__).parents[2] / "docs"
RECIPES = DOCS / "recipes"
FILES = [DOCS / "scale.md", *sorted(RECIPES.iterdir())]


def commands(path: Path) -> Iterator[list[str]]:
    """The ``optimize …`` command lines in a file, as words."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        for container in yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]:
            yield container["command"][1:]
        return
    if path.suffix == ".md":
        text = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    for line in text.splitlines():
        if found := re.match(r"(?:ExecStart=\S*/|\s*)optimize (.*?)&?$", line):
            yield shlex.split(found[1])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_command_parses(path: Path) -> None:
    found = list(commands(path))
    assert found
    for words in found:
        build_app().parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_password_stands_in_a_file(path: Path) -> None:
    assert not re.search(r"postgresql://[^\s@/]+:[^\s@/]+@", path.read_text(encoding="utf-8"))


def test_the_shell_script_is_sound() -> None:
    subprocess.run([shutil.which("bash") or "bash", "-n", str(RECIPES / "worker.sbatch")], check=True)


def test_every_recipe_is_named_in_the_page() -> None:
    page = (DOCS / "scale.md").read_text(encoding="utf-8")
    assert all(f"recipes/{path.name}" in page for path in RECIPES.iterdir())
