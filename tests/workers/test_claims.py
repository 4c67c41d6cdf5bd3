"""Claims on both backends: each trial to one worker, those of the dead to another, and never more than the budget."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Thread

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from optimizer.search.labels import FIXED
from optimizer.search.workers.claims import Claims, Idle, counted, times_lost
from optimizer.search.workers.registry import WorkerEntry
from optimizer.search.workers.storage import SharedStudy, open_database_study, open_local_study
from optimizer.search.workers.trial_writer import TrialResult
from studies import StudyDirectory

OPENED: list[SharedStudy] = []

CLAIMANT = """
import sys
from tests.workers.test_claims import claim_all, open_at
claim_all(open_at(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
"""


class NoLock:
    """A lock that excludes nobody."""

    def held(self) -> nullcontext[None]:
        return nullcontext()


def open_at(place: str) -> SharedStudy:
    OPENED.append(
        open_database_study(place, "claims", create=True, grace=60) if "://" in place else open_local_study(StudyDirectory(Path(place)))
    )
    return OPENED[-1]


@pytest.fixture(params=["journal", pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the study is: a folder, or the address of a database."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield str(request.getfixturevalue("database")) if request.param == "postgres" else str(StudyDirectory(tmp_path).create().path)
    while OPENED:
        OPENED.pop().close()


def entry(name: str) -> WorkerEntry:
    return WorkerEntry(name=name, host="here", pid=1)


def worker(place: str, name: str, *, alive: bool = True) -> Claims:
    shared = open_at(place)
    if alive:
        shared.registry.write(entry(name))
    return Claims(shared.study, shared.lock, shared.registry, shared.writer, name)


def taken(claims: Claims, total: int = 3) -> FrozenTrial:
    trial = claims.take(total).trial
    assert isinstance(trial, FrozenTrial), trial
    return trial


def claim_all(shared: SharedStudy, name: str, total: int) -> None:
    shared.registry.write(entry(name))
    claims = Claims(shared.study, shared.lock, shared.registry, shared.writer, name)
    while isinstance(trial := claims.take(total).trial, FrozenTrial):
        by = [*trial.user_attrs.get("by", []), name]
        assert shared.writer.end(trial, TrialResult(0.5, {"by": by}))


def test_a_dead_workers_trial_goes_to_another_and_counts_as_lost(place: str) -> None:
    lost = taken(worker(place, "dead", alive=False))
    other = worker(place, "other")
    found = taken(other)
    assert found.number == lost.number
    assert times_lost(found) == 1
    again = taken(other)
    assert again.number == found.number  # asked again, because the answer was lost: the same one
    assert times_lost(again) == 1


def test_a_living_workers_trial_stays_with_it(place: str) -> None:
    first, second = worker(place, "first"), worker(place, "second")
    assert [taken(first, 2).number, taken(second, 2).number] == [0, 1]
    assert second.study.tell(1, 0.5).number == 1
    assert second.take(2).trial is Idle.WAIT
    first.study.tell(0, 0.5)
    assert second.take(2).trial is Idle.DONE


def test_a_trial_that_was_given_back_does_not_count_as_lost(place: str) -> None:
    first, second = worker(place, "first"), worker(place, "second")
    trial = taken(first)
    first.give_back(trial)
    found = taken(second)
    assert found.number == trial.number
    assert times_lost(found) == 0


def test_a_trial_beyond_the_budget_that_an_earlier_version_cancelled_counts_for_nothing(place: str) -> None:
    claims = worker(place, "one")
    claims.study.ask().set_user_attr("surplus", True)
    claims.study.tell(0, state=TrialState.FAIL)
    assert taken(claims, 1).number == 1
    assert [t.number for t in counted(claims.study.trials)] == [1]


def test_queued_trials_come_first_and_in_order(place: str) -> None:
    claims = worker(place, "one")
    for share in (0.25, 0.75):
        claims.study.enqueue_trial({"share": share})
    for number, share in enumerate((0.25, 0.75)):
        trial = taken(claims)
        assert (trial.number, trial.system_attrs[FIXED]) == (number, {"share": share})
        claims.study.tell(number, 0.5)
    assert taken(claims).number == 2


def test_who_gets_a_trial_is_told_what_was_known_then(place: str) -> None:
    first, second = worker(place, "first"), worker(place, "second")
    first.study.tell(taken(first).number, 0.5)
    taken(first)
    turn = second.take(2)
    assert turn.trial is Idle.WAIT
    assert [(t.number, t.state) for t in turn.known] == [(0, TrialState.COMPLETE), (1, TrialState.RUNNING)]
    turn = second.take(3)
    assert isinstance(turn.trial, FrozenTrial)
    assert (turn.trial.number, [t.number for t in turn.known]) == (2, [0, 1])


def test_the_budget_is_exact_when_eight_threads_ask_at_once(place: str) -> None:
    threads = [Thread(target=claim_all, args=(open_at(place), f"worker {i}", 30)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _check_whole(open_at(place).study, 30)


@pytest.mark.postgres
def test_the_budget_is_exact_in_a_database_without_a_lock(database: str) -> None:
    shares = [replace(open_at(database), lock=NoLock()) for _ in range(8)]
    threads = [Thread(target=claim_all, args=(shared, f"worker {i}", 30)) for i, shared in enumerate(shares)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _check_whole(shares[0].study, 30)
    while OPENED:
        OPENED.pop().close()


def test_the_budget_is_exact_when_four_processes_ask_at_once(place: str) -> None:
    open_at(place)
    commands = [[sys.executable, "-c", CLAIMANT, place, f"worker {i}", "24"] for i in range(4)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        _, said = process.communicate()
        assert process.returncode == 0, said
    _check_whole(open_at(place).study, 24)


def _check_whole(study: optuna.Study, total: int) -> None:
    assert [t.number for t in counted(study.trials)] == list(range(total))
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    assert {len(t.user_attrs["by"]) for t in study.trials} == {1}
