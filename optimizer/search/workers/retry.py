"""Patience: a storage that does not answer is asked again until it does."""

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
"""What a database that is away, restarts or is overrun makes of a call."""


@dataclass(frozen=True)
class Patience:
    """Repeats what may be repeated.

    Attributes:
        observer: is told once that the storage is away, and once that it is back; may raise ``Stopped`` meanwhile.
        seconds: how long to wait for a storage that stays away.
    """

    observer: Observer
    seconds: float = 600.0

    def __call__(self, operation: Callable[[], T]) -> T:
        """The operation's result; it has to be one that does no harm when it is done twice.

        Raises:
            StudyError: the storage stayed away for the whole time.
        """
        pause, began, told = _FIRST, time.monotonic(), False
        while True:
            try:
                result = operation()
            except OUTAGES as error:
                if isinstance(error, UpdateFinishedTrialError):
                    raise
                if time.monotonic() - began > self.seconds:
                    remedy = "start the database, then run the same command again: everything finished is kept"
                    raise StudyError(f"the storage does not answer ({reason(error)})", remedy=remedy) from None
                if not told:
                    self.observer.note(f"the storage does not answer ({reason(error)}); trying again for {self.seconds / 60:.0f} min")
                    told = True
                self.observer.waiting(pause)
                pause = min(2 * pause, _LONGEST)
            else:
                if told:
                    self.observer.note("the storage answers again")
                return result


def reason(error: BaseException) -> str:
    """Why, in one line that holds no credentials: the driver's own first line, without what it was asked to do."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    cause = getattr(cause, "orig", None) or cause
    return " ".join(str(cause).split("\n")[0].split())[:200] or type(cause).__name__
