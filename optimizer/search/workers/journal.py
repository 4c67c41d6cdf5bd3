"""Optuna's journal storage on one machine, robust against full disks and killed processes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend

from optimizer.search.trials.optuna_storage import JournalLock


class Journal(JournalFileBackend):
    """Optuna's journal file backend with two differences.

    The lock is an operating system lock, which is released when its process ends. Lines are written completely or not at all: a partial
    line, left by a full disk or a power failure, is truncated before the next append. Optuna would append to it and could read neither.

    Args:
        path: path of the journal; created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._system_lock = _SystemLock(path.with_name(f"{path.name}.lock"))
        super().__init__(str(path), self._system_lock)

    def append_logs(self, logs: Sequence[dict[str, Any]]) -> None:
        """Appends lines durably.

        Raises:
            OSError: the disk is full or cannot be written; the journal is then unchanged.
        """
        lines = "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in logs).encode()
        self._system_lock.acquire()
        try:
            with self._path.open("r+b", buffering=0) as file:
                end = complete_length(self._path)
                file.truncate(end)
                file.seek(end)
                try:
                    if file.write(lines) != len(lines):
                        raise OSError(28, os.strerror(28), str(self._path))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
        finally:
            self._system_lock.release()


class _SystemLock(JournalLock):
    """Operating system file lock with Optuna's lock interface."""

    def __init__(self, path: Path) -> None:
        if path.is_symlink():
            path.unlink()  # left by a process that died while it held Optuna's own lock
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def complete_length(path: Path) -> int:
    """Returns the number of bytes up to the end of the last complete line."""
    size = path.stat().st_size
    with path.open("rb") as file:
        end = size
        while end > 0:
            start = max(0, end - 4096)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0
