"""Whole searches with ranges, fixed weights, groups of blocks and a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optimizer import optimize
from optimizer.cli.main import execute
from optimizer.errors import UsageError
from optimizer.merging import Recipe
from optimizer.search.labels import is_baseline
from tests.files import LINEAR, kohya_file, random_parts

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sources")
    return [str(kohya_file(folder / f"{n}.safetensors", random_parts(LINEAR, rank=2 + i, seed=i)).path) for i, n in enumerate("ab")]


def options(files: list[str], out: Path, **changes: Any) -> dict[str, Any]:
    small = {"own": 1, "joint": 1, "confirm": 2, "finalists": 1, "methods": ("ties",)}
    return {"sources": files, "base": "fake:size=8", "budget": 12, "out": out, **small} | changes


def recipes(out: Path, files: list[str], **changes: Any) -> list[Recipe]:
    study = optimize(**options(files, out, **changes))
    assert study.best is not None
    return [Recipe.from_data(t.evaluation.recipe) for t in study.trials if t.evaluation and not is_baseline(t.label)]


def test_every_proposal_is_within_and_no_merge_is_tried_twice(files: list[str], tmp_path: Path) -> None:
    found = recipes(tmp_path, files, weights=("a=0.2:0.9",), freeze=("b=0.7",), budget=16)
    assert {recipe.weights[1] for recipe in found} == {0.7}
    assert all(0.2 <= recipe.weights[0] <= 0.9 for recipe in found)
    assert all(round(recipe.weights[0] / 0.05, 6).is_integer() for recipe in found)
    assert len({recipe.hash for recipe in found}) == len(found) == 16


def test_groups_of_blocks_by_name_and_none(files: list[str], tmp_path: Path) -> None:
    named = recipes(tmp_path / "named", files, blocks=("in",))
    assert {block for recipe in named for own in recipe.blocks for block in own} == {"IN"}
    assert all(recipe.blocks == () or not any(recipe.blocks) for recipe in recipes(tmp_path / "none", files, blocks=("none",), budget=30))


def test_an_interrupted_search_with_bounds_goes_on_as_it_was(files: list[str], tmp_path: Path) -> None:
    bounds = {"weights": ("a=0.2:0.9",), "grid": 0.1}
    whole = [recipe.hash for recipe in recipes(tmp_path / "whole", files, **bounds)]
    optimize(**options(files, tmp_path / "two", **bounds, timeout=1e-6))
    assert [recipe.hash for recipe in recipes(tmp_path / "two", files, **bounds)] == whole


def test_nothing_to_search(files: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the weights of all sources are fixed, and nothing else is searched"):
        optimize(**options(files, tmp_path, freeze=("a=1", "b=1"), methods=(), blocks=("none",)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "zoe=0:1"], "--weights: there is no source 'zoe' — name one of a, b, or a position from 1 to 2"),
        (["--blocks", "SIDE"], "--blocks: there is no group of blocks 'SIDE' in this family of models — choose from "),
        (["--blocks", "none", "IN"], "--blocks: got 'none IN' — give auto, none, or names of groups, such as IN OUT"),
        (["--grid", "0.0001"], "--grid: got 0.0001 — give 0.001 or more, or 0 for weights of any value"),
    ],
)
def test_refusals_come_before_anything_is_written(
    files: list[str], words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert execute(["--sources", *files, "--base", "fake:", *words, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
