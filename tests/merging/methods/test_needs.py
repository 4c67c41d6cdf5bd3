"""What a method needs beside the recipe: a merge and a search refuse, before they begin, a method whose inputs are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from optimizer.checkpoints.folder import Folder
from optimizer.cli.main import execute
from optimizer.errors import RecipeError, UsageError
from optimizer.merging import METHODS, Recipe, merge
from optimizer.merging.methods import AVAILABLE, LIVE, check_needs
from optimizer.merging.models import Blend, Job
from optimizer.search.proposals.methods import known_methods
from tests.files import LINEAR, kohya_file, random_parts
from tests.merging.samples import make_adapter
from tests.tiny import tiny_pipeline

REFUSAL = (
    "the method 'solved' needs activations of the base model, which are not available here — "
    "choose a method that needs the sources alone, such as 'linear'"
)


@pytest.fixture(autouse=True)
def solved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that needs activations, in the table."""
    monkeypatch.setitem(METHODS, "solved", replace(METHODS["linear"], name="solved", needs="activations"))


def test_a_merge_of_loras_refuses_it() -> None:
    recipe = Recipe(method="solved", weights=(1.0, 0.5))
    with pytest.raises(RecipeError) as refused:
        merge([make_adapter(1), make_adapter(2)], recipe)
    assert str(refused.value) == f"recipe: method: {REFUSAL}"


def test_a_merge_of_models_refuses_it(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "a")
    model = Folder(tmp_path / "a")
    with pytest.raises(RecipeError) as refused:
        Blend(Job((model, model), base=model, recipe=Recipe(method="solved", weights=(1.0, 0.5))))
    assert str(refused.value) == f"recipe: method: {REFUSAL}"


def test_the_command_line_refuses_it_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(kohya_file(tmp_path / f"{i}.safetensors", random_parts(LINEAR, seed=i)).path) for i in range(2)]
    (place := tmp_path / "place").mkdir()
    monkeypatch.chdir(place)
    assert execute(["merge", "--sources", *files, "--weights", "1", "1", "--method", "solved"]) == 2
    assert capsys.readouterr().err.endswith(f"optimize: recipe: method: {REFUSAL}\n")
    assert execute(["--sources", *files, "--base", "fake:size=4", "--methods", "ties", "solved"]) == 2
    assert capsys.readouterr().err == f"optimize: --methods: {REFUSAL}\n"
    assert list(place.iterdir()) == []


def test_a_search_does_not_offer_it() -> None:
    with pytest.raises(UsageError) as refused:
        known_methods(["tise"], 2)
    assert "linear" in str(refused.value)
    assert "solved" not in str(refused.value)


def test_every_method_of_today_has_what_it_needs() -> None:
    for name, method in METHODS.items():
        if name != "solved":
            check_needs(method, available=LIVE if method.solved else AVAILABLE)


def test_a_merge_that_is_not_solved_yet_says_how_to_solve_it() -> None:
    with pytest.raises(RecipeError, match=r"'ssr' needs activations of the base model.*by optimize merge --method ssr --base"):
        merge([make_adapter(1), make_adapter(2)], Recipe(method="ssr", weights=(1.0, 1.0)))
