"""The floors of the house: an import points down, whether it stands at the top, inside a function or under TYPE_CHECKING."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("optimizer", "objectives", "studies")

# Room → the rooms that it may import from. ``optimizer`` itself (the public names, ``python -m optimizer``) stands above all others.
_GROUND = {"optimizer.errors", "optimizer.text"}
_FILES = {*_GROUND, "optimizer.adapters", "optimizer.checkpoints"}
_MERGING = {*_FILES, "optimizer.merging"}
_DRAWING = {*_MERGING, "optimizer.rendering", "optimizer.export", "optimizer.inspection"}
_SEARCH = {*_DRAWING, "optimizer.calibration", "objectives", "studies"}
_JOBS = {*_SEARCH, "optimizer.search"}

FLOORS: dict[str, set[str]] = {
    "optimizer.text": set(),
    "optimizer.errors": {"optimizer.text"},
    "optimizer.adapters": _GROUND,
    "optimizer.checkpoints": {*_GROUND, "optimizer.adapters"},
    "optimizer.merging": _FILES,
    "optimizer.rendering": _MERGING,
    "optimizer.export": _MERGING,
    "optimizer.inspection": _MERGING,
    "optimizer.calibration": {*_DRAWING, "objectives"},
    "optimizer.search": _SEARCH,
    "optimizer.jobs": _JOBS,
    "optimizer.ui": {*_JOBS, "optimizer.jobs"},
    "optimizer.cli": {*_JOBS, "optimizer.jobs", "optimizer.ui", "studies.demo"},
    "objectives": set(),
    "studies": set(),
    "studies.demo": {"studies"},
}
MODELS = {"torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "open_clip", "torchmetrics", "safetensors", "lycoris"}
TERMINAL = {"cyclopts", "rich"}
"""Libraries for the command line alone."""

FORBIDDEN = {
    "objectives": {"optuna", "diffusers", "peft", "safetensors", "lycoris"},
    "studies": MODELS | {"optuna"},
    "studies.demo": {"optuna"},
}


def files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in files()}


def room_of(module: str) -> str:
    """The longest name in the table that the module lies in; ``optimizer`` for what is above all rooms."""
    return max((room for room in FLOORS if f"{module}.".startswith(f"{room}.")), key=len, default=module.partition(".")[0])


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, by its full name, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides where it points"
            module = node.module or ""
            yield from (name if (name := f"{module}.{alias.name}") in MODULES else module for alias in node.names)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(module_of(path))
    if room == "optimizer":  # the door: public names and ``python -m optimizer``
        return
    for name in imports(path):
        if name.partition(".")[0] in PACKAGES:
            target = room_of(name)
            demo = room in ("optimizer.search", "optimizer.jobs", "optimizer.inspection") and name == "studies.demo.world"
            assert target == room or target in FLOORS[room] or demo, f"{room} must not import {name}"
        else:
            forbidden = FORBIDDEN.get(room, set()) | (TERMINAL if room != "optimizer.cli" else set())
            assert name.partition(".")[0] not in forbidden, f"{room} must not import {name}"


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module) for module in MODULES}
    assert rooms <= {*FLOORS, "optimizer"}
    assert {module for module in MODULES if room_of(module) == "optimizer"} == {"optimizer", "optimizer.__main__"}


def test_the_command_line_knows_of_the_demo_world_only_where_it_lies() -> None:
    for module, path in MODULES.items():
        if module.startswith("optimizer"):
            assert {name for name in imports(path) if name.startswith("studies.demo")} <= {"studies.demo.world"}, module


def test_no_cycle_between_rooms_or_modules() -> None:
    rooms = {room: {room_of(name) for name in MODULES if room_of(name) in allowed} for room, allowed in FLOORS.items()}
    assert list(TopologicalSorter(rooms).static_order())
    graph = {
        module: {n for n in imports(path) if n in MODULES and n != module} for module, path in MODULES.items() if module != "optimizer"
    }
    assert list(TopologicalSorter(graph).static_order())


def test_a_misplaced_import_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from optimizer.search import run\ndef f():\n    import optuna.trial\n"
    )
    assert set(imports(file)) == {"typing", "optimizer.search.run", "optuna.trial"}
    assert room_of("optimizer.search.run") == "optimizer.search"
    assert room_of("studies.demo.drawing.draw") == "studies.demo"
    assert room_of("studies.report.report") == "studies"
