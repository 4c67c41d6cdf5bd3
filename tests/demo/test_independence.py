"""What judges the software must not be seen by it: no module that searches or scores imports the probes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("studies.demo.probes",)
JUDGED = ("optimizer", "objectives")


def imports(source: str) -> Iterator[str]:
    """Every absolute name that the source imports, also those given to ``import_module``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("studies."):
            yield node.value


def forbidden(source: str) -> list[str]:
    return [name for name in imports(source) if any(name == f or name.startswith(f"{f}.") for f in FORBIDDEN)]


@pytest.mark.parametrize(
    "line",
    [
        "import studies.demo.probes.network",
        "from studies.demo import probes",
        "from studies.demo.probes.network import load_probes",
        "def f():\n    from studies.demo.probes.accuracy import accuracy as a",
        "import importlib\nimportlib.import_module('studies.demo.probes.network')",
    ],
)
def test_an_import_of_the_probes_is_found(line: str) -> None:
    assert forbidden(line)


@pytest.mark.parametrize(
    "line",
    ["from studies.demo.embedder.training import ASSET", "from studies import records", "import studies.demo.probes_of_another_kind"],
)
def test_other_imports_are_allowed(line: str) -> None:
    assert not forbidden(line)


@pytest.mark.parametrize("package", JUDGED)
def test_no_module_of_the_software_imports_the_probes(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    assert {str(f.relative_to(ROOT)): found for f in files if (found := forbidden(f.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize("module", ["embedder/training", "embedder/pictures", "drawing/softening", "base_model/tokenizer"])
def test_the_embedder_knows_nothing_of_the_probes_or_the_sources(module: str) -> None:
    names = set(imports((ROOT / "studies" / "demo" / f"{module}.py").read_text(encoding="utf-8")))
    assert not {n for n in names if n.startswith(FORBIDDEN)}
    assert not names & {"studies.demo.drawing.styles.STYLES", "studies.demo.drawing.characters.CHARACTERS"}
