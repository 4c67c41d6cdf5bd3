"""The gate: while trials are given out, one worker at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock
from sqlalchemy import Engine, text

_LONGEST = 2**31 - 1  # milliseconds that PostgreSQL's timeouts hold


class Gate(Protocol):
    """Whoever is inside is alone there, among all workers of a study; it opens by itself when a worker dies."""

    def passing(self) -> AbstractContextManager[None]:
        """Wait for the turn, and keep it during the block."""


@dataclass(frozen=True)
class FileGate:
    """By a lock of the operating system: the processes of one machine.

    Attributes:
        path: the lock file.
    """

    path: Path

    @contextmanager
    def passing(self) -> Iterator[None]:
        """See ``Gate``."""
        with FileLock(self.path):
            yield


@dataclass(frozen=True)
class DatabaseGate:
    """By a PostgreSQL advisory lock, held by a transaction: ends with it, whatever becomes of the connection.

    Of a worker that sleeps, or whose machine is cut off, inside the gate, the server ends the connection after a while.

    Attributes:
        engine: connections to the database.
        study: the study's name.
        seconds: how long one may stay inside.
    """

    engine: Engine
    study: str
    seconds: float = 120.0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """See ``Gate``."""
        number = int.from_bytes(hashlib.sha256(f"multilora {self.study}".encode()).digest()[:8], "big", signed=True)
        limit = {"limit": str(min(max(1, round(self.seconds * 1000)), _LONGEST))}
        with self.engine.begin() as connection:
            connection.execute(text("SELECT set_config('idle_in_transaction_session_timeout', :limit, true)"), limit)
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
            yield
