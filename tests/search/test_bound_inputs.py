"""A study is bound to what it rests on: code that proposes or scores otherwise does not go on with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from objectives import AnyObjective, table
from optimizer import optimize
from optimizer.errors import StudyError
from optimizer.search.config import Config
from optimizer.search.evaluation import fingerprint as context
from optimizer.search.evaluation.fingerprint import check_same_inputs, evaluation_context, study_inputs
from optimizer.search.evaluation.prompt_sets import search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.observer import Silent
from optimizer.search.proposals import space
from optimizer.search.workers.storage import open_local_study
from studies import StudyDirectory
from studies.store import FolderStore
from studies.trial_log import StudyEntry, TrialLog
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import After, trials

BOUND = ["source a", "source b", "base", "embedder", "prompts", "search space", "rendering", "scorer", "libraries"]


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    files = [str(kohya_file(tmp_path / f"{n}.safetensors", random_parts(LINEAR, rank=2, seed=i)).path) for i, n in enumerate("ab")]
    return {"sources": files, "base": "fake:size=4", "budget": 2, "own": 1, "joint": 1, "confirm": 1, "out": tmp_path / "study"}


def test_another_scorer_another_space_and_other_libraries_are_refused(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    optimize(**options, observer=After(1, rendering=False))
    monkeypatch.setattr(context, "SCORER", 99)
    monkeypatch.setattr(space, "WEIGHT_RANGE", (0.0, 2.0))
    monkeypatch.setattr(context, "version", lambda _: "9.9")
    with pytest.raises(StudyError) as caught:
        optimize(**options)
    assert re.fullmatch(
        r".*: what the study here rests on has changed since it began \(search space: \w{8} → \w{8}; scorer: version 5 → version 99; "
        r"libraries: torch [\d.]+, diffusers [\d.]+ → torch [\d.]+, diffusers 9.9\) — "
        r"put it back, or start a new study with what is still valid: --fork NAME",
        str(caught.value),
    )


def test_a_larger_budget_does_not_change_the_space(options: dict[str, Any]) -> None:
    optimize(**options)
    assert len(optimize(**options | {"budget": 40, "timeout": 1e-9}).trials) == 6


def test_an_older_study_is_accepted_and_learns_what_it_lacks(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    directory = StudyDirectory(options["out"])
    first = optimize(**options, observer=After(1, rendering=False))
    study, log = open_local_study(directory).study, TrialLog(FolderStore(directory.path))
    full = study.user_attrs["inputs"]
    assert list(full) == BOUND
    old = {name: full[name] for name in BOUND[:5]}
    study.set_user_attr("inputs", old)
    log.begin(StudyEntry(budget=2, inputs=old))
    resumed = optimize(**options)
    assert trials(resumed.trials)[:1] == trials(first.trials)
    assert open_local_study(directory).study.user_attrs["inputs"] == full
    assert log.beginning == StudyEntry(budget=2, inputs=full)
    monkeypatch.setattr(context, "SCORER", 99)
    with pytest.raises(StudyError, match="scorer: version 5 → version 99"):
        optimize(**options)


def test_what_was_not_written_down_is_not_compared() -> None:
    check_same_inputs({}, {"base": "a" * 64}, "here")
    with pytest.raises(StudyError, match=r"^here: .*\(base: aaaaaaaa → bbbbbbbb\) — "):
        check_same_inputs({"base": "a" * 64}, {"base": "b" * 64, "scorer": "1"}, "here")


def test_a_study_without_columns_goes_on_with_them(options: dict[str, Any]) -> None:
    session = prepare(Config.of(**options), Silent())
    drawn = session.drawing_context(search_prompts(session.config, session.sources))

    def inputs(*columns: AnyObjective) -> dict[str, str]:
        found = evaluation_context(drawn, session.embedder.name, objectives=(*table.OBJECTIVES, *columns))
        return study_inputs(found, session.sources, session.space(3))

    before, after = inputs(), inputs(*table.COLUMNS)
    assert {name: text for name, text in after.items() if before.get(name) != text} == {
        "columns": "kernel_distance version 1, similarity version 1"
    }
    check_same_inputs(before, after, "here")
    with pytest.raises(StudyError, match="columns: kernel_distance version 1, similarity version 1 → similarity version 1"):
        check_same_inputs(after, inputs(table.COLUMNS[1]), "here")
