"""Heartbeat of a worker, sent by a separate thread while the worker runs."""

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
    """Registry entry of this worker, with its heartbeat.

    Attributes:
        roster: registry that the entry is stored in.
        member: present state of the worker.
        interval: seconds between heartbeats.
    """

    roster: Roster
    member: Member
    interval: float
    _lock: Lock = field(default_factory=Lock)
    _began: float = field(default_factory=time.monotonic)

    @contextmanager
    def shown(self, patience: Callable[[Callable[[], None]], None]) -> Iterator[Presence]:
        """Registers the worker and sends heartbeats while the block runs; then signs off.

        Args:
            patience: retry policy for the first registration.
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
        """Changes the state and stores it at once; raises the registry's exceptions."""
        with self._lock:
            seconds = time.monotonic() - self._began
            self.member = self.member.model_copy(update=changes | {"beat": self.member.beat + 1, "seconds": seconds, "at": time.time()})
            self.roster.sign(self.member)

    def show(self, **changes: Any) -> None:
        """Changes the state, and stores it if the storage answers; otherwise it is stored with the next heartbeat."""
        with suppress(OSError, *OUTAGES):
            self.sign(**changes)

    def note(self, **changes: Any) -> None:
        """Changes the state; it is stored with the next heartbeat."""
        with self._lock:
            self.member = self.member.model_copy(update=changes)

    def count(self, **more: int) -> None:
        """Increases the counters of pictures or trials; they are stored with the next heartbeat."""
        with self._lock:
            self.member = self.member.model_copy(update={name: getattr(self.member, name) + n for name, n in more.items()})

    def _beat(self, end: Event) -> None:
        while not end.wait(self.interval):
            self.show()
