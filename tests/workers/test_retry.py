"""Retries: an outage is waited out, and told of without what nobody may read."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from optimizer.errors import StudyError
from optimizer.search.observer import Silent, Stopped
from optimizer.search.workers.retry import RetryPolicy, reason
from tests.postgres import Server


class Watcher(Silent):
    """Turns the clock instead of waiting, and writes down what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_after: int = 1000) -> None:
        self.now, self.notes, self.pauses, self.stop_after = 0.0, list[str](), list[float](), stop_after
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def waiting(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        if len(self.pauses) == self.stop_after:
            raise Stopped

    def note(self, message: str) -> None:
        self.notes.append(message)


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def call() -> str:
        if left:
            raise left.pop()
        return "answer"

    return call


def away() -> OperationalError:
    """What SQLAlchemy raises, statement and parameters included."""
    return OperationalError("SELECT :password", {"password": "swordfish"}, ConnectionError("server closed the connection\nmore"))


def test_an_outage_is_told_once_and_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(monkeypatch)
    assert RetryPolicy(watcher)(failing(8, away())) == "answer"
    assert watcher.pauses == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert watcher.notes == [
        "the storage does not answer (server closed the connection); trying again for 10 min",
        "the storage answers again",
    ]


def test_where_nothing_fails_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(monkeypatch)
    assert RetryPolicy(watcher)(failing(0, away())) == "answer"
    assert watcher.notes == []


def test_a_storage_that_stays_away_ends_the_run_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(monkeypatch)
    with pytest.raises(StudyError) as caught:
        RetryPolicy(watcher, seconds=60)(failing(1000, away()))
    assert str(caught.value) == (
        "the storage does not answer (server closed the connection) — "
        "start the database, then run the same command again: everything finished is kept"
    )
    assert 60 < watcher.now <= 75


def test_a_stop_during_an_outage_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stopped):
        RetryPolicy(Watcher(monkeypatch, stop_after=3))(failing(1000, away()))


@pytest.mark.parametrize("error", [ValueError("a mistake"), KeyError("x"), UpdateFinishedTrialError("it has ended")])
def test_what_is_no_outage_is_not_repeated(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    watcher = Watcher(monkeypatch)
    with pytest.raises(type(error)):
        RetryPolicy(watcher)(failing(1, error))
    assert watcher.pauses == []


@pytest.mark.parametrize("error", [StorageInternalError("away"), ConnectionResetError("away"), TimeoutError("away"), away()])
def test_every_kind_of_outage_is_waited_out(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    assert RetryPolicy(Watcher(monkeypatch))(failing(2, error)) == "answer"


def test_the_reason_is_one_line_without_the_password() -> None:
    wrapped = StorageInternalError("An exception is raised during the commit: SELECT swordfish")
    wrapped.__cause__ = away()
    assert reason(wrapped) == "server closed the connection"
    assert reason(TimeoutError()) == "TimeoutError"
    assert len(reason(ValueError("x" * 1000))) == 200


@pytest.mark.postgres
def test_a_real_server_that_restarts(database: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    server.stop()

    class Starter(Silent):
        told: tuple[str, ...] = ()

        def note(self, message: str) -> None:
            self.told += (message,)

        def waiting(self, seconds: float) -> None:
            if len(self.told) == 1:
                server.start()
                self.told += ("started",)

    watcher = Starter()

    def asked() -> int:
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT 1")).scalar_one())

    assert RetryPolicy(watcher)(asked) == 1
    engine.dispose()
    assert watcher.told[0].startswith("the storage does not answer (")
    assert watcher.told[1:] == ("started", "the storage answers again")
    assert not any("swordfish" in line for line in watcher.told)
