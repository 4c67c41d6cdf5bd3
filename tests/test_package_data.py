"""The package: every file that is not Python and that the code reads is listed, so that an installed copy has it too."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LISTED: dict[str, list[str]] = PROJECT["tool"]["setuptools"]["package-data"]


@pytest.mark.parametrize("package", ["optimizer", "objectives", "studies"])
def test_every_data_file_is_listed(package: str) -> None:
    listed = {path for pattern in LISTED[package] for path in (ROOT / package).glob(pattern) if path.is_file()}
    there = {
        path
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and not path.name.startswith(".tmp-")
    }
    assert listed == there
    assert ROOT / package / "py.typed" in listed


def test_every_pattern_finds_something() -> None:
    for package, patterns in LISTED.items():
        for pattern in patterns:
            assert list((ROOT / package).glob(pattern)), f"{package}: {pattern}"


def test_every_package_is_found() -> None:
    """A folder without ``__init__.py`` would be left out of an installed copy."""
    for package in ("optimizer", "objectives", "studies"):
        folders = {path.parent for path in (ROOT / package).rglob("*.py")}
        assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_every_dependency_is_pinned() -> None:
    """What is tested together is written down: every direct dependency stands in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    stated = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
    names = {requirement.split(">=")[0].split("[")[0].strip().lower().replace("_", "-") for requirement in stated}
    assert names - pinned == set()
