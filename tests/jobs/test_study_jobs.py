"""Jobs on a study that exists, without the command line: resuming, joining, reporting, repairing, following."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optimizer import optimize
from optimizer.errors import StudyError, UsageError
from optimizer.jobs.saved_studies import joined_config, repair_study, resumed_config, rewrite_report
from optimizer.jobs.watch_study import find_study, find_trials, follow
from optimizer.search.config import Config
from optimizer.search.status import StudyStatus
from studies import StudyDirectory
from studies.store import FolderStore
from tests.files import LINEAR, kohya_file, random_parts

DATABASE = {"storage": "postgresql://u@h/d", "artifacts": "/mnt/store"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of four baselines and one recipe."""
    home = tmp_path_factory.mktemp("home")
    files = [str(kohya_file(home / f"{n}.safetensors", random_parts(LINEAR, rank=2, seed=i)).path) for i, n in enumerate("ab")]
    few: dict[str, Any] = {"budget": 1, "own": 1, "joint": 1, "confirm": 1, "finalists": 1}
    return optimize(files, "fake:size=4", out=home / "study", **few).directory


def saved(folder: Path, **options: object) -> Path:
    """A study directory that holds only a configuration."""
    folder.mkdir()
    StudyDirectory(folder).settings.write_text(Config.of(sources=("a", "b"), out=folder, **options).to_yaml())
    return folder


def test_a_study_is_resumed_where_it_is_now(study: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "study.yaml").write_bytes((study / "study.yaml").read_bytes())
    assert resumed_config(moved).options() == Config.from_yaml(study / "study.yaml").options() | {"out": moved}
    assert resumed_config(moved, 9).search.budget == 9
    with pytest.raises(StudyError, match="there is no such directory"):
        resumed_config(tmp_path / "nowhere")


def test_a_worker_joins_a_study_on_this_machine_or_in_a_database(study: Path, tmp_path: Path) -> None:
    assert joined_config(study, "", "", "") == resumed_config(study)
    shared = saved(tmp_path / "night", **DATABASE)
    assert joined_config(shared, "", "", "") == Config.of(study="night", **DATABASE)
    assert joined_config(shared, "postgresql://u:secret@h/d", "", "").places.storage == "postgresql://u:secret@h/d"
    assert joined_config(None, "postgresql://h/d", "s", "/x").places.study == "s"
    with pytest.raises(UsageError) as caught:
        joined_config(None, "postgresql://h/d", "s", "")
    assert (
        str(caught.value)
        == "where the study is cannot be told — give the study's directory, or --storage, --study and --artifacts together"
    )


def test_a_report_is_written_again(study: Path, tmp_path: Path) -> None:
    before = (study / "report.html").read_bytes()
    (study / "report.html").unlink()
    assert rewrite_report(study).read_bytes() == before
    with pytest.raises(StudyError, match="cannot be read"):
        rewrite_report(saved(tmp_path / "new"))


def test_a_study_is_checked(study: Path, tmp_path: Path) -> None:
    assert repair_study(study) == ["5 trials found; nothing to repair"]
    with pytest.raises(UsageError) as caught:
        repair_study(saved(tmp_path / "night", **DATABASE))
    message = "the study is in a database and has no journal here — restore the database from its backup"
    assert str(caught.value) == f"{tmp_path / 'night'}: {message}"


def test_trials_and_pictures_of_a_study_are_found(study: Path, tmp_path: Path) -> None:
    shared, store = find_trials(study, "", "", "")
    assert len(shared.study.trials) == 5
    assert isinstance(store, FolderStore)
    assert any(store.names("sheets"))
    with pytest.raises(UsageError, match="which study is meant cannot be told"):
        find_study(None, "", "", "")
    (tmp_path / "left").mkdir()
    for name in ("study.yaml", "summary.json"):
        (tmp_path / "left" / name).write_bytes((study / name).read_bytes())
    with pytest.raises(UsageError) as caught:
        find_trials(tmp_path / "left", "", "", "")
    assert str(caught.value) == f"{tmp_path / 'left'}: the trials cannot be read, only the report is left — open report.html there"


def test_a_study_is_followed_through_an_outage_until_it_is_done(study: Path) -> None:
    done = find_study(study, "", "", "").read()
    assert done.state == "done"
    outage = StudyError("the storage does not answer", where="s")
    readings: list[StudyStatus | StudyError] = [
        done.model_copy(update={"state": "searching"}),
        outage,
        outage,
        done.model_copy(update={"state": "confirming"}),
        done,
    ]

    def look() -> StudyStatus:
        found = readings.pop(0)
        if isinstance(found, StudyError):
            raise found
        return found

    notes: list[str] = []
    assert [found.state for found in follow(look, notes.append, pause=0.0)] == ["searching", "confirming", "done"]
    assert notes == ["warning: s: the storage does not answer; looking again"]
