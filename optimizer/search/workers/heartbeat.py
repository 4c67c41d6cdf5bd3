"""Presence: a worker's sign of life, given by a thread of its own while the worker works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Any

from optimizer.search.workers.registry import Member, Roster
from optimizer.search.workers.retry import OUTAGES


@dataclass
class Presence:
    """This worker in the roster.

    Attributes:
        roster: where it signs.
        member: its present state.
        interval: seconds between signs of life.
    """

    roster: Roster
    member: Member
    interval: float
    _lock: Lock = field(default_factory=Lock)
    _began: float = field(default_factory=time.monotonic)

    @contextmanager
    def shown(self, patience: Callable[[Callable[[], None]], None]) -> Iterator[Presence]:
        """Be on the roster, alive, while the block runs; then sign off.

        Args:
            patience: repeats the first sign until it gets through.
        """
        patience(lambda: self.sign(state="loading"))
        end = Event()
        thread = Thread(target=self._beat, args=(end,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            end.set()
            thread.join()
            self.show(state="left")

    def sign(self, **changes: Any) -> None:
        """Change the state and sign at once; raises what the roster raises."""
        with self._lock:
            seconds = time.monotonic() - self._began
            self.member = self.member.model_copy(update=changes | {"beat": self.member.beat + 1, "seconds": seconds, "at": time.time()})
            self.roster.sign(self.member)

    def show(self, **changes: Any) -> None:
        """Change the state, and sign if the storage answers; else the next sign of life tells."""
        with suppress(OSError, *OUTAGES):
            self.sign(**changes)

    def note(self, **changes: Any) -> None:
        """Change the state; it is seen at the next sign of life."""
        with self._lock:
            self.member = self.member.model_copy(update=changes)

    def count(self, **more: int) -> None:
        """Count pictures or trials; they are seen at the next sign of life."""
        with self._lock:
            self.member = self.member.model_copy(update={name: getattr(self.member, name) + n for name, n in more.items()})

    def _beat(self, end: Event) -> None:
        while not end.wait(self.interval):
            self.show()
