"""Study status: what is told of a study that is worked on, has stopped, or is done; and that looking changes nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import optuna
import pytest

from optimizer.errors import StudyError
from optimizer.search.config import Config
from optimizer.search.status import StudyReader, watch_directory
from optimizer.search.workers.registry import FolderRegistry, StudyRegistry, WorkerEntry, new_worker
from optimizer.search.workers.storage import SharedStudy, open_local_study
from optimizer.search.workers.trial_writer import StorageTrialWriter
from studies import StudyDirectory


class Open:
    def held(self) -> nullcontext[None]:
        return nullcontext()


def shared(grace: float = 60) -> SharedStudy:
    study = optuna.create_study(direction="maximize")
    return SharedStudy(study, Open(), StudyRegistry(study, grace), StorageTrialWriter(study))


def fill(study: optuna.Study, total: int = 8) -> None:
    """Four baselines and one recipe have ended, one recipe runs."""
    study.set_user_attr("total", total)
    for label in ("a alone", "b alone", "stack", "naive"):
        study.enqueue_trial({}, user_attrs={"label": label})
    for score in (0.9, 0.1, 0.4, 0.3, None):
        study.tell(study.ask(), score, state=optuna.trial.TrialState.FAIL if score is None else None)
    study.ask()


def entry(**changes: object) -> WorkerEntry:
    return new_worker().model_copy(update={"state": "working", "at": time.time(), **changes})


def test_a_run_in_the_middle() -> None:
    found = shared()
    fill(found.study)
    found.registry.write(entry(trial=5, finished=4, failed=1, seconds=20.0, pictures=60))
    status = StudyReader("x", found, StudyDirectory("nowhere")).read()
    assert (status.study, status.state, status.finished) == ("a + b", "searching", False)
    assert (status.trials, status.ended, status.running, status.failed) == (8, 5, 1, 1)
    assert (status.recipes, status.budget) == (1, 4)
    assert (status.best, status.best_label, status.stack, status.naive) == (0.4, "stack", 0.4, 0.3)
    assert status.eta == pytest.approx(3 / (4 / 20))
    (worker,) = status.workers
    assert (worker.state, worker.trial, worker.finished, worker.failed, worker.pictures_per_second) == ("working", 5, 4, 1, 3.0)
    assert worker.seen is not None
    assert worker.seen < 5
    assert (status.file, status.resume) == ("", "")


def test_time_for_solving_merges_does_not_count_for_the_time_left() -> None:
    found = shared()
    fill(found.study)
    found.registry.write(entry(trial=5, finished=4, seconds=620.0, solving=600.0))
    assert StudyReader("x", found, StudyDirectory("nowhere")).read().eta == pytest.approx(3 / (4 / 20))


def test_before_the_first_trial() -> None:
    found = shared()
    reader = StudyReader("x", found, StudyDirectory("nowhere"))
    assert (reader.read().state, reader.read().trials, reader.read().study) == ("stopped", 0, "x")
    found.registry.write(entry(state="loading", at=0.0))
    status = reader.read()
    assert (status.state, status.eta, status.best) == ("loading", None, None)
    assert (status.workers[0].seen, status.workers[0].pictures_per_second) == (None, None)


def test_who_does_not_count_up_is_lost_and_who_signed_off_is_gone() -> None:
    found = shared(grace=0.05)
    fill(found.study)
    there = entry(finished=1, seconds=1.0)
    StudyRegistry(found.study, 60).write(there)
    reader = StudyReader("x", found, StudyDirectory("a b"))
    assert reader.read().workers[0].state == "working"
    time.sleep(0.1)
    status = reader.read()
    assert (status.workers[0].state, status.state, status.eta) == ("lost", "stopped", None)
    assert status.resume == "optimize resume 'a b'"
    found.registry.write(there.model_copy(update={"state": "left"}))
    assert reader.read().workers == ()


def test_a_sign_of_life_that_is_long_past_is_one_of_the_lost() -> None:
    found = shared()
    found.registry.write(entry(at=time.time() - 1000))
    assert StudyReader("x", found).read().workers[0].state == "lost"


def test_all_trials_have_ended() -> None:
    found = shared()
    fill(found.study, total=6)
    assert not StudyReader("x", found).read().finished
    found.study.tell(5, 0.5)
    assert StudyReader("x", found).read().state == "done"
    found.registry.write(entry())
    assert StudyReader("x", found, StudyDirectory("nowhere")).read().state == "confirming"


def test_looking_at_a_directory_changes_nothing(tmp_path: Path) -> None:
    directory = StudyDirectory(tmp_path)
    directory.settings.write_text(Config.of(sources=("a", "b")).to_yaml())
    with pytest.raises(StudyError, match=r"there is no journal of trials — start the run, or name the directory"):
        watch_directory(directory)
    fill(open_local_study(directory).study)
    registry, gone = FolderRegistry(directory.path / "workers"), entry(name="gone")
    registry.write(entry(name="here"))
    FolderRegistry(directory.path / "workers").write(gone)  # its lock goes with the object
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    status = watch_directory(directory).read()
    assert {worker.name: worker.state for worker in status.workers} == {"gone": "lost", "here": "working"}
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    directory.journal.write_bytes(b"")
    with pytest.raises(StudyError, match="the study has not begun yet"):
        watch_directory(directory)


def test_what_is_looked_with_does_not_bring_torch() -> None:
    program = "import sys, optimizer.search.status, optimizer.cli.commands.status; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
