"""The lock that keeps a second run out of a study directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from optimizer.errors import StudyError
from studies import StudyDirectory


@contextmanager
def lock_run(directory: StudyDirectory) -> Iterator[None]:
    """Holds the lock that excludes all other runs from a study until the block, or the process, ends.

    Raises:
        StudyError: another run holds the lock.
    """
    lock = FileLock(directory.journal.with_name(f"{directory.journal.name}.run"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        remedy = "wait until it ends, or choose another --out"
        raise StudyError("another run is working on the study here", where=directory.path, remedy=remedy) from None
    try:
        yield
    finally:
        lock.release()
