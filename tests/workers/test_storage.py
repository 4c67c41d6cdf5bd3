"""Opening a study: what cannot be used is told in one line, and a password is told nowhere."""

from __future__ import annotations

import dataclasses
import gc
import sys
import warnings
from pathlib import Path

import pytest

from optimizer.errors import StudyError, UsageError
from optimizer.search.workers.storage import grace_seconds, heartbeat_seconds, open_database_study, open_local_study
from studies import StudyDirectory
from tests.postgres import PASSWORD, free_port
from tests.workers.runs import Job, Sources

CHECK = "check the address, PGPASSWORD or the service file, and that the server runs"


def refused(url: str, *, create: bool = True) -> str:
    with pytest.raises((UsageError, StudyError)) as caught:
        open_database_study(url, "s", create=create)
    told = str(caught.value)
    del caught
    with warnings.catch_warnings():  # of connections of a storage that Optuna could not open and has dropped
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return told


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "sqlite:///study.db",
            "--storage: SQLite loses trials when several processes write to it — "
            "give a PostgreSQL database, or leave --storage out on a single machine",
        ),
        (
            "mysql://u:swordfish@h/d",
            "--storage: workers cannot share a database of the kind 'mysql' — give postgresql://USER@HOST/DATABASE",
        ),
        ("study", "--storage: workers cannot share a database of the kind 'study' — give postgresql://USER@HOST/DATABASE"),
        ("postgresql://u:swordfish@h:port/d", "--storage: this is no address of a database — give postgresql://USER@HOST/DATABASE"),
    ],
)
def test_what_is_no_database_to_share(url: str, told: str) -> None:
    assert refused(url) == told


def test_a_server_that_is_not_there() -> None:
    port = free_port()
    for create in (True, False):
        told = refused(f"postgresql://u:swordfish@127.0.0.1:{port}/d", create=create)
        assert told.startswith("--storage: the database cannot be used (")
        assert told.endswith(f"Connection refused) — {CHECK}")
        assert "swordfish" not in told
        assert "\n" not in told


def test_a_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    told = refused("postgresql://u@h/d")
    assert told == '--storage: the driver for PostgreSQL is not installed — pip install "multilora-optimizer[postgres]"'


@pytest.mark.postgres
def test_a_study_that_is_not_in_the_database(database: str) -> None:
    open_database_study(database, "other", create=True).close()
    told = refused(database, create=False)
    assert told == "--study: there is no study 's' in the database — begin it with optimize --storage … --study s, or check the name"


@pytest.mark.postgres
def test_a_database_in_which_no_study_was_ever_begun(database: str) -> None:
    told = refused(database, create=False)
    assert told.startswith("--storage: the database cannot be used (relation ")
    assert PASSWORD not in told


@pytest.mark.postgres
def test_a_wrong_password_is_not_repeated(database: str) -> None:
    told = refused(database.replace(PASSWORD, "herring"))
    assert "password authentication failed" in told
    assert "herring" not in told
    assert told.endswith(CHECK)


@pytest.mark.postgres
def test_two_begin_the_same_study_and_share_it(database: str) -> None:
    first, second = (open_database_study(database, "s", create=True) for _ in range(2))
    first.study.ask()
    assert len(second.study.trials) == 1
    first.close()
    second.close()


def test_a_damaged_journal_is_named_with_what_to_do(tmp_path: Path) -> None:
    directory = StudyDirectory(tmp_path).create()
    open_local_study(directory)
    directory.journal.write_bytes(b"{broken}\n" + directory.journal.read_bytes())
    with pytest.raises(StudyError) as caught:
        open_local_study(directory)
    assert str(caught.value).startswith(f"{directory.journal}: the journal is damaged (")
    assert str(caught.value).endswith(f") — rebuild it from the evaluations: optimize repair {directory.path}")


def test_grace_and_beat_are_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (heartbeat_seconds({}), heartbeat_seconds({"MULTILORA_BEAT": ""}), grace_seconds({})) == (10.0, 10.0, 120.0)
    assert grace_seconds({"MULTILORA_GRACE": "2.5"}) == 2.5
    for text in ("soon", "0", "-1", "nan", "inf"):
        with pytest.raises(UsageError) as caught:
            grace_seconds({"MULTILORA_GRACE": text})
        assert str(caught.value) == f"MULTILORA_GRACE: is {text!r} — give seconds, a number above 0"
    monkeypatch.setenv("MULTILORA_BEAT", "0.5")
    assert heartbeat_seconds() == 0.5, "read when it is needed, not when the module is imported"


@pytest.mark.postgres
def test_a_password_is_in_nothing_that_a_run_leaves_or_says(database: str, sources: Sources, out: Path) -> None:
    job = Job(sources, out, 2, storage=database, artifacts=str(out.parent / "artifacts"))
    run = job.begin(job.words("--workers", "2"), out.parent / "log")
    assert run.popen.wait() == 0, run.told
    worker = job.begin(job.join(), out.parent / "worker-log")
    assert worker.popen.wait() == 0, worker.told
    wrong = dataclasses.replace(job, storage=database.replace(PASSWORD, f"{PASSWORD}-2"))
    refusal = wrong.begin(wrong.join(), out.parent / "wrong-log")
    assert refusal.popen.wait() != 0
    assert "password authentication failed" in refusal.told
    kept = [path for path in out.parent.rglob("*") if path.is_file()]
    assert {"study.yaml", "summary.json", "report.html", "1.log", "log", "worker-log"} <= {path.name for path in kept}
    assert [path for path in kept if PASSWORD.encode() in path.read_bytes()] == []
    shared = open_database_study(database, job.name, create=False)
    assert PASSWORD not in str(shared.study.user_attrs)
    shared.close()
