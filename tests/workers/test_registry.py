"""Who is alive: by a lock of the operating system on one machine, by counting up across machines."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from optimizer.search.workers.registry import FolderRegistry, StudyRegistry, WorkerEntry, new_worker

SIGNS = """
import sys, time
from pathlib import Path
from optimizer.search.workers.registry import FolderRegistry, WorkerEntry
registry = FolderRegistry(Path(sys.argv[1]))
registry.write(WorkerEntry(name="other", host="here", pid=1))
print("signed", flush=True)
time.sleep(600)
"""


def entry(name: str, beat: int = 0, state: str = "working") -> WorkerEntry:
    return WorkerEntry(name=name, host="here", pid=1, beat=beat, state=state)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has signed in the folder as ``other``."""
    process = subprocess.Popen([sys.executable, "-c", SIGNS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "signed\n"
    yield process
    process.kill()
    process.communicate()


def test_in_a_folder_a_process_is_alive_until_it_ends_and_is_then_forgotten(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    registry = FolderRegistry(tmp_path)
    assert registry.alive("other")
    assert [m.name for m in registry.entries()] == ["other"]
    other.kill()
    other.wait()
    assert not registry.alive("other")
    assert registry.entries() == []
    assert list(tmp_path.iterdir()) == []


def test_in_a_folder_the_clock_does_not_matter(tmp_path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "monotonic", lambda: 1e12)
    assert FolderRegistry(tmp_path).alive("other")


def test_in_a_folder_whoever_signs_off_or_never_signed_is_not_alive(tmp_path: Path) -> None:
    here, elsewhere = FolderRegistry(tmp_path / "workers"), FolderRegistry(tmp_path / "workers")
    here.write(entry("one"))
    assert here.alive("one")
    here.write(entry("one", state="left"))
    assert not elsewhere.alive("one")
    assert not elsewhere.alive("nobody")
    assert not (tmp_path / "workers").exists()


def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "victim.lock").touch()
    assert not FolderRegistry(tmp_path / "workers").alive("../victim")
    assert (tmp_path / "victim.lock").exists()


def test_a_torn_file_in_the_folder_is_no_member(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text('{"name": "to')
    assert FolderRegistry(tmp_path).entries() == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """This machine's steady clock, to be turned by hand; the other one, which can jump, does."""
    now = {"now": 1000.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["now"])
    monkeypatch.setattr(time, "time", lambda: -(now["now"] ** 3))
    return now


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study()


def test_in_a_study_whoever_counts_up_is_alive_and_who_stops_is_dead_after_the_grace(study: optuna.Study, clock: dict[str, float]) -> None:
    there, here = StudyRegistry(study, 60), StudyRegistry(study, 60)
    there.write(entry("other", 1))
    assert here.alive("other")
    clock["now"] += 59
    assert here.alive("other")
    there.write(entry("other", 2))
    clock["now"] += 59
    assert here.alive("other")
    clock["now"] += 60
    assert not here.alive("other")
    there.write(entry("other", 3))
    assert here.alive("other")


def test_in_a_study_the_first_look_begins_the_grace_however_old_the_sign_is(study: optuna.Study, clock: dict[str, float]) -> None:
    StudyRegistry(study, 60).write(entry("other", 7))
    clock["now"] += 1e6
    here = StudyRegistry(study, 60)
    assert here.alive("other")
    clock["now"] += 60
    assert not here.alive("other")


def test_in_a_study_whoever_signs_off_or_never_signed_is_not_alive_and_oneself_always_is(
    study: optuna.Study, clock: dict[str, float]
) -> None:
    here, there = StudyRegistry(study, 60), StudyRegistry(study, 60)
    here.write(entry("one"))
    clock["now"] += 1e6
    assert here.alive("one")
    here.write(entry("one", state="left"))
    assert not here.alive("one")
    assert not there.alive("one")
    assert not there.alive("nobody")
    assert there.entries() == []


def test_every_newcomer_has_a_name_of_its_own() -> None:
    assert len({new_worker().name for _ in range(100)}) == 100
