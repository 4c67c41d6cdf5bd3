"""Progress reporting of a run, and the way to request that it stops."""

from __future__ import annotations

import time
from typing import Protocol

from studies.records import TrialRecord


class Stopped(Exception):
    """The run was asked to stop; the running trial is left unfinished and is repeated on resume."""


class Observer(Protocol):
    """Receives the progress of a run. All methods are called from the run's own thread."""

    def stage(self, name: str, total: int) -> None:
        """Reports the start of a stage with ``total`` trials or picture sets."""

    def pictures(self, done: int, total: int) -> None:
        """Reports the number of finished pictures of the current trial or set; may raise ``Stopped``."""

    def solving(self, what: str, done: int, total: int, loss: float) -> None:
        """Reports the progress of solving a merge on the base model, with the loss of its training or NaN; may raise ``Stopped``."""

    def waiting(self, seconds: float) -> None:
        """Sleeps for ``seconds`` while there is no trial to evaluate; may raise ``Stopped``."""

    def trial(self, record: TrialRecord) -> None:
        """Reports a trial, of this or another worker, that has ended and is on disk."""

    def note(self, message: str) -> None:
        """Reports a message for the user."""


class Silent:
    """Observer that reports nothing."""

    def stage(self, name: str, total: int) -> None: ...

    def pictures(self, done: int, total: int) -> None: ...

    def solving(self, what: str, done: int, total: int, loss: float) -> None: ...

    def waiting(self, seconds: float) -> None:
        time.sleep(seconds)

    def trial(self, record: TrialRecord) -> None: ...

    def note(self, message: str) -> None: ...
