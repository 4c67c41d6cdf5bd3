"""Locks that serialize the assignment of trials among workers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock
from sqlalchemy import Engine, text

_LONGEST = 2**31 - 1  # upper limit of PostgreSQL's timeouts, in milliseconds


class StudyLock(Protocol):
    """Lock that one worker of a study can hold at a time; released automatically when the worker dies."""

    def held(self) -> AbstractContextManager[None]:
        """Acquires the lock, and holds it during the block."""


@dataclass(frozen=True)
class FileStudyLock:
    """Lock among the processes of one machine, by an operating system file lock.

    Attributes:
        path: path of the lock file.
    """

    path: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Acquires the file lock, and holds it during the block."""
        with FileLock(self.path):
            yield


@dataclass(frozen=True)
class DatabaseStudyLock:
    """Lock among machines, by a PostgreSQL advisory lock bound to a transaction, so that it is released when the connection ends.

    If the holder sleeps or loses its network connection, the server closes its connection after ``seconds``.

    Attributes:
        engine: engine with connections to the database.
        study: name of the study.
        seconds: maximum time that the lock may be held.
    """

    engine: Engine
    study: str
    seconds: float = 120.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Acquires the advisory lock, and holds it during the block."""
        number = int.from_bytes(hashlib.sha256(f"multilora {self.study}".encode()).digest()[:8], "big", signed=True)
        limit = {"limit": str(min(max(1, round(self.seconds * 1000)), _LONGEST))}
        with self.engine.begin() as connection:
            connection.execute(text("SELECT set_config('idle_in_transaction_session_timeout', :limit, true)"), limit)
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
            yield
