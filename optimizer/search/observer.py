"""What a run tells whoever watches it, and how it is asked to stop."""

from __future__ import annotations

import time
from typing import Protocol

from studies.records import TrialRecord


class Stopped(Exception):
    """The run was asked to stop; the running trial is left as it is and will be repeated on resume."""


class Observer(Protocol):
    """Watches a run. Every method is called from the run's own thread."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins: ``total`` trials or picture sets."""

    def pictures(self, done: int, total: int) -> None:
        """Pictures of the current trial or set that are finished; the place to raise ``Stopped``."""

    def waiting(self, seconds: float) -> None:
        """There is nothing to do for so long; sleeps, and may raise ``Stopped``."""

    def trial(self, record: TrialRecord) -> None:
        """A trial has ended and is on disk, be it this worker's or another's."""

    def note(self, message: str) -> None:
        """Something the user should know."""


class Silent:
    """Watches and says nothing."""

    def stage(self, name: str, total: int) -> None: ...

    def pictures(self, done: int, total: int) -> None: ...

    def waiting(self, seconds: float) -> None:
        time.sleep(seconds)

    def trial(self, record: TrialRecord) -> None: ...

    def note(self, message: str) -> None: ...
