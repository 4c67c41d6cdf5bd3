"""Claims of trials over connections that break between the server's commit and its answer, or while the lock is held."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import optuna
import psycopg
import pytest
from optuna.trial import FrozenTrial, TrialState

from optimizer.search.labels import FIXED
from optimizer.search.observer import Silent
from optimizer.search.trials.frozen_trials import waiting_trial
from optimizer.search.workers.claims import Claims, Idle, counted, times_lost
from optimizer.search.workers.retry import OUTAGES, RetryPolicy
from optimizer.search.workers.trial_writer import TrialResult, TrialWriter
from tests.postgres import Server
from tests.workers.proxy import Proxy
from tests.workers.test_claims import OPENED, open_at, worker

pytestmark = pytest.mark.postgres


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with Proxy(server.port) as found:
        yield found
        while OPENED:
            OPENED.pop().close()


@pytest.fixture
def through(proxy: Proxy, server: Server, database: str) -> str:
    """The address of a fresh database through the proxy."""
    return server.url(database.rpartition("/")[2], proxy.port)


class Quick(Silent):
    def waiting(self, seconds: float) -> None: ...


def evaluate_all(claims: Claims, total: int) -> list[int]:
    """Evaluate trials until none is left; returns their numbers."""
    numbers = []
    while isinstance(trial := RetryPolicy(Quick())(lambda: claims.take(total)).trial, FrozenTrial):
        numbers.append(trial.number)
        assert _writes_of(claims).end(trial, TrialResult(0.5))
        assert len(numbers) <= total + 3
    return numbers


def _writes_of(claims: Claims) -> TrialWriter:
    return next(shared.writer for shared in OPENED if shared.study is claims.study)


@pytest.mark.parametrize("total", [1, 3])
@pytest.mark.parametrize("times", [1, 2, 6])
def test_a_new_trial_whose_commit_was_not_answered_is_created_once(proxy: Proxy, through: str, total: int, times: int) -> None:
    claims = worker(through, "one")
    proxy.lose_answer("INSERT INTO trials", times)
    assert evaluate_all(claims, total) == list(range(total))
    assert proxy.answers_to_lose == max(0, times - total)
    assert [t.state for t in claims.study.trials] == [TrialState.COMPLETE] * total


def test_trials_whose_commit_was_not_answered_are_queued_once(proxy: Proxy, through: str) -> None:
    shared = open_at(through)
    proxy.lose_answer("INSERT INTO trials", 2)
    for number, label in enumerate(("a alone", "b alone", "stack")):
        trial = waiting_trial(label, {"weight": float(number)})
        created = RetryPolicy(Quick())(partial(shared.writer.create, trial, number))
        assert (created is None) == (number < 2)
    assert proxy.answers_to_lose == 0
    assert [(t.user_attrs, t.system_attrs[FIXED]) for t in shared.study.trials] == [
        ({"label": "a alone"}, {"weight": 0.0}),
        ({"label": "b alone"}, {"weight": 1.0}),
        ({"label": "stack"}, {"weight": 2.0}),
    ]
    assert {t.state for t in shared.study.trials} == {TrialState.WAITING}


def test_a_queued_trial_whose_start_was_not_answered_stays_with_its_worker(proxy: Proxy, through: str) -> None:
    first, second = worker(through, "first"), worker(through, "second")
    for share in (0.25, 0.75):
        first.study.enqueue_trial({"share": share})
    proxy.lose_answer("UPDATE trials SET state")
    with pytest.raises(OUTAGES):
        first.take(2)
    taken = second.take(2).trial, first.take(2).trial
    assert [trial.number for trial in taken if isinstance(trial, FrozenTrial)] == [1, 0]


def test_a_dead_workers_trial_whose_reassignment_was_not_answered_counts_as_lost_once(proxy: Proxy, through: str) -> None:
    assert isinstance(worker(through, "dead", alive=False).take(1).trial, FrozenTrial)
    claims = worker(through, "one")
    proxy.lose_answer("INSERT INTO trial_user_attributes")
    trial = RetryPolicy(Quick())(lambda: claims.take(1)).trial
    assert isinstance(trial, FrozenTrial)
    assert proxy.answers_to_lose == 0
    assert times_lost(trial) == 1


@pytest.mark.parametrize("break_off", ["the server ends the lock's connection", "the network is cut"])
def test_the_budget_holds_when_the_lock_is_lost_between_the_count_and_the_new_trial(
    proxy: Proxy, through: str, database: str, monkeypatch: pytest.MonkeyPatch, break_off: str
) -> None:
    first, second = worker(through, "first"), worker(database, "second")
    real = optuna.Study.get_trials
    lost, taken = False, list[FrozenTrial | Idle]()

    def read_then_lose_the_lock(study: optuna.Study, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        nonlocal lost
        found = real(study, *arguments, **options)
        if study is first.study and not lost:
            lost = True
            if break_off == "the network is cut":
                proxy.cut()
            else:
                _end_connection_with_lock(database)
            taken.append(second.take(1).trial)
        return list(found)

    monkeypatch.setattr(optuna.Study, "get_trials", read_then_lose_the_lock)
    assert evaluate_all(first, 1) == []
    assert [trial.number for trial in taken if isinstance(trial, FrozenTrial)] == [0]
    assert [t.number for t in counted(second.study.trials)] == [0]
    assert first.take(1).trial is Idle.WAIT
    assert [t.user_attrs["worker"] for t in second.study.trials] == ["second"]


def _end_connection_with_lock(database: str) -> None:
    held = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    with psycopg.connect(database) as connection:
        assert connection.execute(held).fetchall() == [(True,)]
