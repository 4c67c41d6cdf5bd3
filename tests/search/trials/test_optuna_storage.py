"""What Optuna keeps private is named in one file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_floors import PACKAGES, ROOT

ADAPTER = ROOT / "optimizer/search/trials/optuna_storage.py"
PRIVATE = {"_storage", "_study_id", "_trial_id", "_backend", "_cached_frozen_trial"}


def private_names(path: Path) -> Iterator[str]:
    """Every private attribute of Optuna's objects that a file reads or sets, and every private module of Optuna that it imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE and not _is_own(node):
            yield node.attr
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_private(alias.name))
        elif isinstance(node, ast.ImportFrom):
            yield from (name for alias in node.names if _is_private(name := f"{node.module}.{alias.name}"))


def _is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def _is_private(module: str) -> bool:
    first, *rest = module.split(".")
    return first == "optuna" and any(part.startswith("_") for part in rest)


@pytest.mark.parametrize("package", PACKAGES)
def test_private_names_of_optuna_stand_in_one_file(package: str) -> None:
    found = {path for path in (ROOT / package).rglob("*.py") if any(private_names(path))}
    assert found == ({ADAPTER} if package == "optimizer" else set())


def test_a_private_name_elsewhere_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "import optuna._hypervolume\nfrom optuna.storages._rdb import models\nfrom optuna.storages import _CachedStorage\n"
        "def f(self, study, trial):\n    self._storage = study._storage\n    return trial._trial_id\n"
    )
    assert sorted(private_names(file)) == sorted(
        ["optuna._hypervolume", "optuna.storages._rdb.models", "optuna.storages._CachedStorage", "_storage", "_trial_id"]
    )
