"""Watching a study while it runs: finding it, and reading its status until it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from optimizer.errors import StudyError, UsageError
from optimizer.jobs.artifacts import open_artifacts
from optimizer.search.config import Config
from optimizer.search.status import StudyReader, StudyStatus, watch_database, watch_directory
from optimizer.search.workers.storage import SharedStudy
from studies import StudyDirectory
from studies.store import FolderStore, Store

PAUSE = 2.0
"""Seconds between two readings."""


def find_study(directory: Path | None, storage: str, study: str, artifacts: str) -> StudyReader:
    """Returns the study in a directory, or the one with this name in a database.

    Args:
        directory: study directory; None for a study in a database.
        storage: database URL.
        study: name in the database.
        artifacts: store of the evaluations of a study in a database, which are counted; empty counts none.

    Raises:
        UsageError: neither a directory nor storage and name are given.
        StudyError: the study cannot be opened.
    """
    if directory is not None and not study:
        return watch_directory(StudyDirectory(directory), storage)
    if directory is not None or not (storage and study):
        raise UsageError("which study is meant cannot be told", remedy="give its directory, or --storage and --study together")
    return watch_database(storage, study, open_artifacts(artifacts) if artifacts else None)


def find_trials(directory: Path | None, storage: str, study: str, artifacts: str) -> tuple[SharedStudy, Store | None]:
    """Returns a study's trials, and the store of its pictures, None if it is not known. Takes the arguments of ``find_study``.

    Raises:
        UsageError: neither a directory nor storage and name are given, or the trials are gone.
        StudyError: the study cannot be opened.
    """
    watched = find_study(directory, storage, study, artifacts)
    if watched.shared is None:
        raise UsageError("the trials cannot be read, only the report is left", where=directory, remedy="open report.html there")
    if watched.directory is None:
        return watched.shared, watched.store
    place = artifacts or Config.from_yaml(watched.directory.settings).places.artifacts
    return watched.shared, open_artifacts(place) if place else FolderStore(watched.directory.path)


def follow(look: Callable[[], StudyStatus], note: Callable[[str], None], pause: float = PAUSE) -> Iterator[StudyStatus]:
    """Yields the status of a study now and after every pause, until the study is done.

    Args:
        look: reads the status.
        note: called with a message when the storage stops to answer; it is read again until it does.
        pause: seconds between two readings.

    Raises:
        StudyError: the first reading fails.
    """
    found, told = look(), False
    yield found
    while found.state != "done":
        time.sleep(pause)
        try:
            found = look()
        except StudyError as error:
            if not told:
                note(f"warning: {error}; looking again")
            told = True
        else:
            told = False
            yield found
