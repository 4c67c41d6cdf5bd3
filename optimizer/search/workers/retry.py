"""Retry policy for a storage that does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from sqlalchemy.exc import DBAPIError

from optimizer.errors import StudyError
from optimizer.search.observer import Observer

T = TypeVar("T")
_FIRST, _LONGEST = 0.5, 15.0
OUTAGES = (StorageInternalError, DBAPIError, ConnectionError, TimeoutError)
"""Exceptions that a database call raises if the database is unavailable, restarting or overloaded."""


@dataclass(frozen=True)
class RetryPolicy:
    """Callable that retries idempotent operations.

    Attributes:
        observer: receives a note when the storage becomes unavailable and when it is available again; may raise ``Stopped``.
        seconds: maximum time to wait for an unavailable storage.
    """

    observer: Observer
    seconds: float = 600.0

    def __call__(self, operation: Callable[[], T]) -> T:
        """Returns the operation's result, retrying it on outages; the operation must be idempotent.

        Raises:
            StudyError: the storage was unavailable for the whole time.
        """
        pause, began, noted = _FIRST, time.monotonic(), False
        while True:
            try:
                result = operation()
            except OUTAGES as error:
                if isinstance(error, UpdateFinishedTrialError):
                    raise
                if time.monotonic() - began > self.seconds:
                    remedy = "start the database, then run the same command again: everything finished is kept"
                    raise StudyError(f"the storage does not answer ({reason(error)})", remedy=remedy) from None
                if not noted:
                    self.observer.note(f"the storage does not answer ({reason(error)}); trying again for {self.seconds / 60:.0f} min")
                    noted = True
                self.observer.waiting(pause)
                pause = min(2 * pause, _LONGEST)
            else:
                if noted:
                    self.observer.note("the storage answers again")
                return result


def reason(error: BaseException) -> str:
    """Returns the cause of an error in one line without credentials: the driver's first line, without the statement."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    cause = getattr(cause, "orig", None) or cause
    return " ".join(str(cause).split("\n")[0].split())[:200] or type(cause).__name__
