"""A study whose journal or evaluations are damaged is repaired, and a resumed run equals one that nothing has happened to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from optimizer import Study, optimize
from optimizer.cli.main import execute
from optimizer.errors import StudyError
from optimizer.search.trials.repair import repair
from optimizer.search.trials.run_lock import lock_run
from optimizer.search.workers.journal import Journal
from optimizer.search.workers.registry import FolderRegistry, new_worker
from optimizer.search.workers.storage import open_local_study
from studies import StudyDirectory
from studies.store import FolderStore
from studies.trial_log import TrialLog
from tests.files import LINEAR, kohya_file, random_parts
from tests.search.runs import After, trials, watch_evaluations

BASE = "fake:size=8"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Trials 0 to 3 are the baselines, 4 and 5 default recipes, 6 and 7 random ones, 8 to 11 come from the sampler's model."""
    folder = tmp_path_factory.mktemp("sources")
    files = [str(kohya_file(folder / f"{n}.safetensors", random_parts(LINEAR, rank=2 + i, seed=i)).path) for i, n in enumerate("ab")]
    return {"sources": files, "base": BASE, "budget": 8, "own": 2, "joint": 2, "confirm": 2, "finalists": 1}


@pytest.fixture(scope="module")
def whole(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Study:
    return optimize(**options, out=tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def stopped(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    optimize(**options, out=folder, observer=After(9, rendering=True))
    return folder


@pytest.fixture
def broken_off(stopped: Path, tmp_path: Path) -> Path:
    """A study that was stopped after trial 8."""
    return Path(shutil.copytree(stopped, tmp_path / "study"))


def truncated(journal: Path) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]))


def filled_with_garbage(journal: Path) -> None:
    data = bytearray(journal.read_bytes())
    data[len(data) // 3 : len(data) // 2] = b"\xff\x00" * 50
    journal.write_bytes(data)


def garbage_in_the_last_line(journal: Path) -> None:
    with journal.open("ab") as file:
        file.write(b"garbage\n")


def no_entries(journal: Path) -> None:
    journal.write_bytes(b"5\n[]\n")


def missing(journal: Path) -> None:
    journal.unlink()


@pytest.mark.parametrize("damage", [truncated, filled_with_garbage, garbage_in_the_last_line, no_entries, missing])
def test_a_journal(whole: Study, options: dict[str, Any], broken_off: Path, damage: Callable[[Path], None]) -> None:
    journal = broken_off / "journal.log"
    damage(journal)
    before = journal.read_bytes() if journal.exists() else None
    found = repair(StudyDirectory(broken_off))
    assert (found.trials, found.repeated, found.rebuilt) == (9, 0, True)
    kept = "" if before is None else ", the old one is kept as journal.log.1.broken"
    assert found.lines() == [f"9 trials found; journal rebuilt{kept}; optimize resume {broken_off} goes on"]
    if before is not None:
        assert (broken_off / "journal.log.1.broken").read_bytes() == before
    assert not list(broken_off.glob(".tmp-*"))
    again = repair(StudyDirectory(broken_off))
    assert again.lines() == ["9 trials found; nothing to repair"]
    assert trials(optimize(**options, out=broken_off).trials) == trials(whole.trials)


def test_the_log_has_every_value_that_was_proposed(broken_off: Path) -> None:
    proposed = [t.params for t in open_local_study(StudyDirectory(broken_off)).study.trials[:9]]
    assert [entry.values for entry in TrialLog(FolderStore(broken_off)).entries()] == proposed
    assert all(proposed)


def test_the_study_is_that_of_before(broken_off: Path) -> None:
    def attributes() -> tuple[object, ...]:
        study = open_local_study(StudyDirectory(broken_off)).study
        of_trials = [{k: v for k, v in t.user_attrs.items() if k != "worker"} for t in study.trials if t.state.is_finished()]
        told = [(t.values, t.params, t.distributions) for t in study.trials[:9]]
        return {k: v for k, v in study.user_attrs.items() if k != "total"}, of_trials, told

    before = attributes()
    missing(broken_off / "journal.log")
    repair(StudyDirectory(broken_off))
    assert attributes() == before


def test_a_damaged_evaluation_is_repeated(
    whole: Study, options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study"
    shutil.copytree(whole.directory, study)
    for number in (7, 1):
        key = json.loads((study / f"evaluations/trials/{number:06d}.json").read_text())["key"]
        (study / f"evaluations/{key}.json").write_text("{")
    assert execute(["repair", str(study)]) == 0
    assert capsys.readouterr().out == (
        "12 trials found, 2 evaluations damaged (moved aside); 2 trials will be repeated; "
        f"journal rebuilt, the old one is kept as journal.log.1.broken; optimize resume {study} goes on\n"
    )
    assert execute(["repair", str(study)]) == 0
    assert capsys.readouterr().out == "12 trials found; nothing to repair\n"
    assert len(list((study / "evaluations").glob("*.broken"))) == 2
    evaluated = watch_evaluations(monkeypatch)
    resumed = optimize(**options, out=study)
    assert trials(resumed.trials) == trials(whole.trials)
    assert len(evaluated) == 2 + 3


def test_a_baseline_that_nothing_is_known_of_gets_its_label_and_values_back(
    whole: Study, options: dict[str, Any], broken_off: Path
) -> None:
    """As a trial that another worker was evaluating."""
    (broken_off / "evaluations/trials/000002.json").unlink()
    (broken_off / "journal.log").unlink()
    assert repair(StudyDirectory(broken_off)).lines()[0].startswith("8 trials found; 1 trial will be repeated; ")
    assert trials(optimize(**options, out=broken_off).trials) == trials(whole.trials)


def test_a_proposal_that_nothing_is_known_of_is_made_anew(options: dict[str, Any], broken_off: Path) -> None:
    (broken_off / "evaluations/trials/000006.json").write_text("torn")
    (broken_off / "journal.log").write_text("garbage\n" * 3)
    assert repair(StudyDirectory(broken_off)).repeated == 1
    study = open_local_study(StudyDirectory(broken_off)).study
    assert [t.number for t in study.trials if t.state == TrialState.WAITING] == [6]
    found = optimize(**options, out=broken_off).trials
    assert [t.number for t in found] == list(range(12))
    assert all(t.evaluation for t in found)


def test_an_entry_that_the_log_has_lost_is_written_again(broken_off: Path) -> None:
    entry = broken_off / "evaluations/trials/000006.json"
    before = entry.read_bytes()
    entry.write_text("torn")
    found = repair(StudyDirectory(broken_off))
    assert found.lines() == [f"9 trials found; 1 entry of the trial log written again; optimize resume {broken_off} goes on"]
    assert entry.read_bytes() == before


def test_failures_are_kept(options: dict[str, Any], tmp_path: Path) -> None:
    failing = options | {"base": "fake:size=4&fail=0.3&oom=0.3", "seed": 1}
    first = optimize(**failing, out=tmp_path)
    (tmp_path / "journal.log").unlink()
    (tmp_path / "summary.json").unlink()
    repair(StudyDirectory(tmp_path))
    again = optimize(**failing, out=tmp_path)
    assert trials(again.trials) == trials(first.trials)
    assert [t.error for t in again.trials] == [t.error for t in first.trials]
    assert any(t.error for t in again.trials)


def test_pictures_that_are_gone_are_named(broken_off: Path) -> None:
    for index in (2, 7):
        entry = json.loads((broken_off / f"evaluations/trials/{index:06d}.json").read_text())
        evaluation = json.loads((broken_off / f"evaluations/{entry['key']}.json").read_text())["evaluation"]
        if evaluation["images"]:
            shutil.rmtree((broken_off / evaluation["images"][0]).parent)
    lines = repair(StudyDirectory(broken_off)).lines()
    assert lines[0] == "9 trials found; nothing to repair"
    assert lines[1].startswith("pictures are missing of stack")
    assert lines[1].endswith("; the scores do not need them")


def test_what_is_at_work_is_left_alone(broken_off: Path) -> None:
    directory = StudyDirectory(broken_off)
    with lock_run(directory), pytest.raises(StudyError, match="another run is working on the study here"):
        repair(directory)
    registry, entry = FolderRegistry(broken_off / "workers"), new_worker()
    registry.write(entry)
    with pytest.raises(StudyError) as caught:
        repair(directory)
    assert str(caught.value) == (
        f"{broken_off}: a worker is at work on the study here (process {entry.pid}) — wait until it ends, or stop it"
    )
    registry.write(entry.model_copy(update={"state": "left"}))
    assert repair(directory).lines() == ["9 trials found; nothing to repair"]


def test_what_cannot_be_repaired(broken_off: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["repair", str(tmp_path)]) == 2
    assert "this is not a study, it holds no study.yaml" in capsys.readouterr().err
    settings = broken_off / "study.yaml"
    settings.write_text(settings.read_text().replace("storage: ''", "storage: postgresql://host/base"))
    assert execute(["repair", str(broken_off)]) == 2
    assert capsys.readouterr().err == (
        f"optimize: {broken_off}: the study is in a database and has no journal here — restore the database from its backup\n"
    )


def test_a_damaged_journal_names_the_command(options: dict[str, Any], broken_off: Path) -> None:
    (broken_off / "journal.log").write_bytes(b"5\n[]\n")
    with pytest.raises(StudyError, match=f"the journal is damaged .* — rebuild it from the evaluations: optimize repair {broken_off}"):
        optimize(**options, out=broken_off)


def test_a_study_of_which_nothing_is_left_begins_again(whole: Study, options: dict[str, Any], broken_off: Path) -> None:
    shutil.rmtree(broken_off / "evaluations")
    (broken_off / "journal.log").write_bytes(b"\0" * 100 + b"\n")
    assert repair(StudyDirectory(broken_off)).lines() == [
        f"0 trials found; journal rebuilt, the old one is kept as journal.log.1.broken; optimize resume {broken_off} goes on"
    ]
    study = optuna.load_study(study_name="search", storage=JournalStorage(Journal(broken_off / "journal.log")))
    assert study.trials == []
    assert trials(optimize(**options, out=broken_off).trials) == trials(whole.trials)
