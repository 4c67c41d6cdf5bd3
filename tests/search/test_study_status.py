"""Standing: what is told of a study that is worked on, has stopped, or is done; and that looking changes nothing."""

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
from optimizer.search.status import Watched, watch_directory
from optimizer.search.workers.registry import FolderRoster, Member, StudyRoster, newcomer
from optimizer.search.workers.storage import Shared, on_this_machine
from optimizer.search.workers.trial_writes import StorageWrites
from studies import StudyDirectory


class Open:
    def passing(self) -> nullcontext[None]:
        return nullcontext()


def shared(grace: float = 60) -> Shared:
    study = optuna.create_study(direction="maximize")
    return Shared(study, Open(), StudyRoster(study, grace), StorageWrites(study))


def fill(study: optuna.Study, total: int = 8) -> None:
    """Four baselines and one recipe have ended, one recipe runs."""
    study.set_user_attr("total", total)
    for label in ("a alone", "b alone", "stack", "naive"):
        study.enqueue_trial({}, user_attrs={"label": label})
    for score in (0.9, 0.1, 0.4, 0.3, None):
        study.tell(study.ask(), score, state=optuna.trial.TrialState.FAIL if score is None else None)
    study.ask()


def member(**changes: object) -> Member:
    return newcomer().model_copy(update={"state": "working", "at": time.time(), **changes})


def test_a_run_in_the_middle() -> None:
    found = shared()
    fill(found.study)
    found.roster.sign(member(trial=5, finished=4, failed=1, seconds=20.0, pictures=60))
    standing = Watched("x", found, StudyDirectory("nowhere")).look()
    assert (standing.study, standing.state, standing.finished) == ("a + b", "searching", False)
    assert (standing.trials, standing.ended, standing.running, standing.failed) == (8, 5, 1, 1)
    assert (standing.recipes, standing.budget) == (1, 4)
    assert (standing.best, standing.best_label, standing.stack, standing.naive) == (0.4, "stack", 0.4, 0.3)
    assert standing.eta == pytest.approx(3 / (4 / 20))
    (worker,) = standing.workers
    assert (worker.state, worker.trial, worker.finished, worker.failed, worker.pictures_per_second) == ("working", 5, 4, 1, 3.0)
    assert worker.seen is not None
    assert worker.seen < 5
    assert (standing.file, standing.resume) == ("", "")


def test_before_the_first_trial() -> None:
    found = shared()
    watched = Watched("x", found, StudyDirectory("nowhere"))
    assert (watched.look().state, watched.look().trials, watched.look().study) == ("stopped", 0, "x")
    found.roster.sign(member(state="loading", at=0.0))
    standing = watched.look()
    assert (standing.state, standing.eta, standing.best) == ("loading", None, None)
    assert (standing.workers[0].seen, standing.workers[0].pictures_per_second) == (None, None)


def test_who_does_not_count_up_is_lost_and_who_signed_off_is_gone() -> None:
    found = shared(grace=0.05)
    fill(found.study)
    there = member(finished=1, seconds=1.0)
    StudyRoster(found.study, 60).sign(there)
    watched = Watched("x", found, StudyDirectory("a b"))
    assert watched.look().workers[0].state == "working"
    time.sleep(0.1)
    standing = watched.look()
    assert (standing.workers[0].state, standing.state, standing.eta) == ("lost", "stopped", None)
    assert standing.resume == "optimize resume 'a b'"
    found.roster.sign(there.model_copy(update={"state": "left"}))
    assert watched.look().workers == ()


def test_a_sign_of_life_that_is_long_past_is_one_of_the_lost() -> None:
    found = shared()
    found.roster.sign(member(at=time.time() - 1000))
    assert Watched("x", found).look().workers[0].state == "lost"


def test_all_trials_have_ended() -> None:
    found = shared()
    fill(found.study, total=6)
    assert not Watched("x", found).look().finished
    found.study.tell(5, 0.5)
    assert Watched("x", found).look().state == "done"
    found.roster.sign(member())
    assert Watched("x", found, StudyDirectory("nowhere")).look().state == "confirming"


def test_looking_at_a_directory_changes_nothing(tmp_path: Path) -> None:
    directory = StudyDirectory(tmp_path)
    directory.settings.write_text(Config.of(sources=("a", "b")).to_yaml())
    with pytest.raises(StudyError, match=r"there is no journal of trials — start the run, or name the directory"):
        watch_directory(directory)
    fill(on_this_machine(directory).study)
    roster, gone = FolderRoster(directory.path / "workers"), member(name="gone")
    roster.sign(member(name="here"))
    FolderRoster(directory.path / "workers").sign(gone)  # its lock goes with the object
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    standing = watch_directory(directory).look()
    assert {worker.name: worker.state for worker in standing.workers} == {"gone": "lost", "here": "working"}
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    directory.journal.write_bytes(b"")
    with pytest.raises(StudyError, match="the study has not begun yet"):
        watch_directory(directory)


def test_what_is_looked_with_does_not_bring_torch() -> None:
    program = "import sys, optimizer.search.status, optimizer.cli.commands.status; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
