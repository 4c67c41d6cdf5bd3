"""The roster: who works on a study, on what, and who of them is still alive."""

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


class Member(BaseModel):
    """A worker as the others see it.

    Attributes:
        name: unique among all workers that ever were.
        host: its machine.
        pid: its process there.
        beat: counts up while it lives.
        state: ``loading``, ``working``, ``waiting``, or ``left``.
        trial: the number of the trial that it evaluates, if any.
        pictures: pictures rendered so far.
        seconds: how long it has been at it.
        finished: trials that it has evaluated.
        failed: trials of these that failed.
        at: its own clock at its last sign of life, seconds since 1970, 0 where not known. For display only: clocks of machines differ.
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
    finished: int = 0
    failed: int = 0
    at: float = 0.0


class Roster(Protocol):
    """Where the workers of one study sign in."""

    def sign(self, member: Member) -> None:
        """Write down a worker's present state."""

    def members(self) -> Sequence[Member]:
        """All that ever signed and have not been forgotten."""

    def alive(self, name: str) -> bool:
        """Whether the worker is known to live, or may."""

    def dead(self, names: Collection[str]) -> set[str]:
        """Those of the workers that do not live."""

    def seems_alive(self, member: Member) -> bool:
        """The same of one of the members, for those who only watch: nothing is forgotten."""


def newcomer() -> Member:
    """This process as a worker under a new name."""
    host, pid = socket.gethostname(), os.getpid()
    return Member(name=f"{host}-{pid}-{secrets.token_hex(3)}", host=host, pid=pid)


@dataclass
class FolderRoster:
    """Of one machine: a worker holds a lock of the operating system, which ends with it.

    Attributes:
        folder: ``NAME.json`` and ``NAME.lock`` a worker.
    """

    folder: Path
    _held: dict[str, FileLock] = field(default_factory=dict)

    def sign(self, member: Member) -> None:
        """See ``Roster``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if member.name not in self._held:
            self._held[member.name] = FileLock(self._lock(member.name))
            self._held[member.name].acquire(timeout=0)
        if member.state == "left":
            self._forget(member.name)
            self._held.pop(member.name).release()
            with suppress(OSError):
                self.folder.rmdir()
        else:
            write_text(self.folder / f"{member.name}.json", member.model_dump_json())

    def members(self) -> list[Member]:
        """See ``Roster``."""
        found = []
        for file in sorted(self.folder.glob("*.json")):
            try:
                found.append(Member.model_validate_json(file.read_bytes()))
            except (FileNotFoundError, ValidationError):
                continue
        return found

    def alive(self, name: str) -> bool:
        """See ``Roster``; a worker that is dead is forgotten."""
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

    def seems_alive(self, member: Member) -> bool:
        """See ``Roster``."""
        if member.name in self._held or not self._lock(member.name).exists():
            return member.name in self._held
        try:
            with FileLock(self._lock(member.name)).acquire(timeout=0):
                return False
        except Timeout:
            return True

    def dead(self, names: Collection[str]) -> set[str]:
        """See ``Roster``."""
        return {name for name in names if not self.alive(name)}

    def _forget(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink(missing_ok=True)
        self._lock(name).unlink(missing_ok=True)

    def _lock(self, name: str) -> Path:
        return self.folder / f"{Path(name).name}.lock"


_PREFIX = "worker:"


@dataclass
class StudyRoster:
    """Of many machines: workers sign in the study itself, and count up while they live.

    Each looks whether the others' counts go up, by its own clock: clocks need not agree, and may jump. Whoever has not counted for the
    grace is taken for dead. That may be wrong, of a machine that sleeps or is cut off; then a trial is evaluated twice, and the first
    result stands.

    Attributes:
        study: the Optuna study.
        grace: seconds.
    """

    study: optuna.Study
    grace: float
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _own: set[str] = field(default_factory=set)

    def sign(self, member: Member) -> None:
        """See ``Roster``."""
        self._own.add(member.name)
        self.study.set_user_attr(f"{_PREFIX}{member.name}", None if member.state == "left" else member.model_dump(mode="json"))
        if member.state == "left":
            self._own.discard(member.name)

    def members(self) -> list[Member]:
        """See ``Roster``."""
        attrs = self.study.user_attrs
        return [Member.model_validate(value) for name, value in sorted(attrs.items()) if name.startswith(_PREFIX) and value]

    def alive(self, name: str) -> bool:
        """See ``Roster``."""
        if name in self._own:
            return True
        return not self.dead({name})

    def dead(self, names: Collection[str]) -> set[str]:
        """See ``Roster``."""
        others = set(names) - self._own
        alive = {m.name for m in self.members() if m.name in others and self.seems_alive(m)} if others else set()
        return others - alive

    def seems_alive(self, member: Member) -> bool:
        """See ``Roster``."""
        now = time.monotonic()
        count, since = self._seen.get(member.name, (-1, now))
        if member.beat != count:
            self._seen[member.name] = (member.beat, now)
            return True
        return now - since < self.grace
