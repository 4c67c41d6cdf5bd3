"""The worker registry: which workers belong to a study, what they do, and which of them are alive."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import optuna
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from studies.atomic import write_text


class WorkerEntry(BaseModel):
    """Registry entry of a worker.

    Attributes:
        name: unique name among all workers, past and present.
        host: host name of its machine.
        pid: process id on that machine.
        beat: heartbeat counter, which increases while the worker is alive.
        state: ``loading``, ``working``, ``waiting``, or ``left``.
        trial: number of the trial that it evaluates, if any.
        pictures: number of pictures rendered so far.
        seconds: seconds since its start.
        solving: seconds of these in which it solved merges on the base model.
        finished: number of trials that it has evaluated.
        failed: number of those trials that failed.
        at: time of the last heartbeat by its own clock, Unix seconds, 0 if unknown. For display only, because clocks of machines differ.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    host: str
    pid: int
    beat: int = 0
    state: str = "loading"
    trial: int | None = None
    pictures: int = 0
    seconds: float = 0.0
    solving: float = 0.0
    finished: int = 0
    failed: int = 0
    at: float = 0.0


class WorkerRegistry(Protocol):
    """Registry of the workers of one study."""

    def write(self, entry: WorkerEntry) -> None:
        """Stores a worker's present state."""

    def entries(self) -> Sequence[WorkerEntry]:
        """Returns all registered workers that have not been removed."""

    def alive(self, name: str) -> bool:
        """Returns whether the worker is alive, or cannot be ruled out to be."""

    def dead(self, names: Collection[str]) -> set[str]:
        """Returns those of the workers that are not alive."""

    def seems_alive(self, entry: WorkerEntry) -> bool:
        """Returns whether a registered worker is alive, without removing dead entries; for read-only observers."""


def new_worker() -> WorkerEntry:
    """Returns an entry for this process as a worker with a new name."""
    host, pid = socket.gethostname(), os.getpid()
    return WorkerEntry(name=f"{host}-{pid}-{secrets.token_hex(3)}", host=host, pid=pid)


@dataclass
class FolderRegistry:
    """Registry for one machine: each worker holds an operating system file lock, which is released when its process ends.

    Attributes:
        folder: folder with ``NAME.json`` and ``NAME.lock`` per worker.
    """

    folder: Path
    _held: dict[str, FileLock] = field(default_factory=dict)

    def write(self, entry: WorkerEntry) -> None:
        """Stores a worker's present state, and acquires or releases its lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if entry.name not in self._held:
            self._held[entry.name] = FileLock(self._lock(entry.name))
            self._held[entry.name].acquire(timeout=0)
        if entry.state == "left":
            self._forget(entry.name)
            self._held.pop(entry.name).release()
            with suppress(OSError):
                self.folder.rmdir()
        else:
            write_text(self.folder / f"{entry.name}.json", entry.model_dump_json())

    def entries(self) -> list[WorkerEntry]:
        """Returns all registered workers that have not been removed."""
        found = []
        for file in sorted(self.folder.glob("*.json")):
            try:
                found.append(WorkerEntry.model_validate_json(file.read_bytes()))
            except (FileNotFoundError, ValidationError):
                continue
        return found

    def alive(self, name: str) -> bool:
        """Returns whether the worker is alive; the entry of a dead worker is removed."""
        if name in self._held:
            return True
        if not self._lock(name).exists():
            return False
        try:
            with FileLock(self._lock(name)).acquire(timeout=0):
                self._forget(name)
        except Timeout:
            return True
        return False

    def seems_alive(self, entry: WorkerEntry) -> bool:
        """Returns whether a registered worker is alive, without removing dead entries."""
        if entry.name in self._held or not self._lock(entry.name).exists():
            return entry.name in self._held
        try:
            with FileLock(self._lock(entry.name)).acquire(timeout=0):
                return False
        except Timeout:
            return True

    def dead(self, names: Collection[str]) -> set[str]:
        """Returns those of the workers that are not alive; their entries are removed."""
        return {name for name in names if not self.alive(name)}

    def _forget(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        self._lock(name).unlink(missing_ok=True)

    def _lock(self, name: str) -> Path:
        return self.folder / f"{Path(name).name}.lock"


_PREFIX = "worker:"


@dataclass
class StudyRegistry:
    """Registry for several machines: workers store entries in the study's attributes and increase a heartbeat counter while alive.

    Each worker observes by its own clock whether the others' counters increase, so that clocks need not agree and may jump. A worker
    whose counter has not increased for the grace period counts as dead. This may be wrong if its machine sleeps or loses its network
    connection; then a trial is evaluated twice, and the first result is kept.

    Attributes:
        study: Optuna study.
        grace: grace period in seconds.
    """

    study: optuna.Study
    grace: float
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _own: set[str] = field(default_factory=set)

    def write(self, entry: WorkerEntry) -> None:
        """Stores a worker's present state in the study's attributes; an entry with state ``left`` is cleared."""
        self._own.add(entry.name)
        self.study.set_user_attr(f"{_PREFIX}{entry.name}", None if entry.state == "left" else entry.model_dump(mode="json"))
        if entry.state == "left":
            self._own.discard(entry.name)

    def entries(self) -> list[WorkerEntry]:
        """Returns all registered workers that have not left."""
        attrs = self.study.user_attrs
        return [WorkerEntry.model_validate(value) for name, value in sorted(attrs.items()) if name.startswith(_PREFIX) and value]

    def alive(self, name: str) -> bool:
        """Returns whether the worker is alive, by its heartbeat counter."""
        if name in self._own:
            return True
        return not self.dead({name})

    def dead(self, names: Collection[str]) -> set[str]:
        """Returns those of the workers that are not alive."""
        others = set(names) - self._own
        alive = {m.name for m in self.entries() if m.name in others and self.seems_alive(m)} if others else set()
        return others - alive

    def seems_alive(self, entry: WorkerEntry) -> bool:
        """Returns whether the worker's heartbeat counter has increased within the grace period."""
        now = time.monotonic()
        count, since = self._seen.get(entry.name, (-1, now))
        if entry.beat != count:
            self._seen[entry.name] = (entry.beat, now)
            return True
        return now - since < self.grace
