"""--patience ends a search without gains, and a larger budget goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optimizer import Study, optimize
from optimizer.cli.main import execute
from optimizer.errors import UsageError
from optimizer.search.evaluation.pruning import best_of
from optimizer.search.observer import Silent
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import After, trials

pytestmark = pytest.mark.usefixtures("one_thread")

PATIENCE = 5


class Notes(Silent):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    @property
    def ends(self) -> list[str]:
        return [line for line in self.lines if "--patience" in line]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sources")
    files = [str(kohya_file(folder / f"{n}.safetensors", random_parts(LINEAR, rank=2 + i, seed=i)).path) for i, n in enumerate("ab")]
    same = {"own": 4, "joint": 4, "confirm": 2, "methods": ("ties",), "patience": PATIENCE}
    return {"sources": files, "base": "fake:size=8", "budget": 60, **same}


@pytest.fixture(scope="module")
def ended(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Notes]:
    notes = Notes()
    return optimize(**options, out=tmp_path_factory.mktemp("studies") / "study", observer=notes), notes


def test_the_search_ends_before_its_budget_and_ships_a_winner(ended: tuple[Study, Notes]) -> None:
    study, notes = ended
    assert study.complete
    assert study.best is not None
    assert study.best.is_file()
    assert study.summary.finished is not None
    assert len(study.trials) < 4 + 60
    assert notes.ends == [f"the last {PATIENCE} proposals have brought no gain beyond noise; the search ends (--patience)"]


def test_it_ends_at_the_first_moment_at_which_the_last_proposals_gained_nothing(ended: tuple[Study, Notes]) -> None:
    study, _ = ended
    proposals = [r.number for r in study.trials if not r.label]
    now, before = best_of(study.trials), best_of(study.trials[: proposals[-PATIENCE]])
    assert now is not None
    assert before is not None
    assert now.score >= before.score
    assert len(proposals) >= PATIENCE


def test_the_same_command_adds_nothing_and_a_larger_budget_goes_on_with_new_patience(
    options: dict[str, Any], ended: tuple[Study, Notes], capsys: pytest.CaptureFixture[str]
) -> None:
    study, _ = ended
    again = optimize(**options, out=study.directory)
    assert len(again.trials) == len(study.trials)
    assert execute(["resume", str(study.directory), "--budget", "+20"]) == 0
    assert "no gain beyond noise" in capsys.readouterr().err
    more = optimize(**options | {"budget": 80}, out=study.directory)
    assert len(study.trials) + PATIENCE <= len(more.trials) < 4 + 80


def test_an_interrupted_search_ends_at_the_same_trial(options: dict[str, Any], ended: tuple[Study, Notes], tmp_path: Path) -> None:
    study = optimize(**options, out=tmp_path, observer=After(8, rendering=True))
    assert not study.complete
    first = {r.number: r for r in ended[0].trials}
    resumed = optimize(**options, out=tmp_path)
    count = min(len(first), len(resumed.trials))
    assert trials(resumed.trials)[:count] == trials(tuple(first.values()))[:count]
    assert resumed.complete


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pareto": True}, "a front has no single score"),
        ({"no_pruning": True}, "--no-pruning does without"),
        ({"own": 2}, "with fewer than three prompts of a kind"),
    ],
)
def test_where_gains_cannot_be_told_from_noise_it_is_refused(
    changes: dict[str, Any], problem: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=problem) as raised:
        optimize(**options | changes, out=tmp_path / "study")
    assert raised.value.where == f"--patience {PATIENCE}"
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("budget", ["+0", "+x", "-3", "many", "++2"])
def test_a_budget_that_is_no_number_is_refused(budget: str, ended: tuple[Study, Notes], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["resume", str(ended[0].directory), f"--budget={budget}"]) == 2
    assert f"--budget: got '{budget}' — give a number of recipes, or +N" in capsys.readouterr().err
