"""Heartbeat of a worker, sent by a separate thread while the worker runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Any

from optimizer.search.workers.registry import WorkerEntry, WorkerRegistry
from optimizer.search.workers.retry import OUTAGES


@dataclass
class Heartbeat:
    """Registry entry of this worker, with its heartbeat.

    Attributes:
        registry: registry that the entry is stored in.
        entry: present state of the worker.
        interval: seconds between heartbeats.
    """

    registry: WorkerRegistry
    entry: WorkerEntry
    interval: float
    _lock: Lock = field(default_factory=Lock)
    _began: float = field(default_factory=time.monotonic)

    @contextmanager
    def running(self, retry: Callable[[Callable[[], None]], None]) -> Iterator[Heartbeat]:
        """Registers the worker and sends heartbeats while the block runs; then signs off.

        Args:
            retry: retry policy for the first registration.
        """
        retry(lambda: self.send(state="loading"))
        end = Event()
        thread = Thread(target=self._send_repeatedly, args=(end,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            end.set()
            thread.join()
            self.send_if_possible(state="left")

    def send(self, **changes: Any) -> None:
        """Changes the state and stores it at once; raises the registry's exceptions."""
        with self._lock:
            seconds = time.monotonic() - self._began
            self.entry = self.entry.model_copy(update=changes | {"beat": self.entry.beat + 1, "seconds": seconds, "at": time.time()})
            self.registry.write(self.entry)

    def send_if_possible(self, **changes: Any) -> None:
        """Changes the state, and stores it if the storage answers; otherwise it is stored with the next heartbeat."""
        with suppress(OSError, *OUTAGES):
            self.send(**changes)

    def set(self, **changes: Any) -> None:
        """Changes the state; it is stored with the next heartbeat."""
        with self._lock:
            self.entry = self.entry.model_copy(update=changes)

    def add(self, **more: float) -> None:
        """Increases the counters of pictures, trials or solving seconds; they are stored with the next heartbeat."""
        with self._lock:
            self.entry = self.entry.model_copy(update={name: getattr(self.entry, name) + n for name, n in more.items()})

    def _send_repeatedly(self, end: Event) -> None:
        while not end.wait(self.interval):
            self.send_if_possible()
