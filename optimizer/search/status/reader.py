"""Reading a study's status: from its storage while workers run, else from the summary of its last run."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass

from optimizer.errors import StudyError
from optimizer.search.config import Config
from optimizer.search.labels import TOTAL
from optimizer.search.status.live import Observed, live_status
from optimizer.search.status.records import StudyStatus, WorkerStatus
from optimizer.search.status.saved import saved_status
from optimizer.search.study_errors import study_errors
from optimizer.search.workers.claims import counted
from optimizer.search.workers.registry import WorkerEntry
from optimizer.search.workers.retry import OUTAGES, reason
from optimizer.search.workers.storage import SharedStudy, grace_seconds, open_database_study, open_local_study
from studies import EvaluationCache, StudyDirectory, StudyDirectoryError, StudySummary, load_summary
from studies.store import Store


@dataclass(frozen=True)
class StudyReader:
    """A study whose status is read once or repeatedly; lost workers are detected reliably only from the second read.

    Attributes:
        name: name of the study, used before it has a title.
        shared: shared study storage; None if only the summary is left.
        directory: study directory or report directory, if known.
        store: store of the evaluations, if they are to be counted.
    """

    name: str
    shared: SharedStudy | None
    directory: StudyDirectory | None = None
    store: Store | None = None

    def read(self) -> StudyStatus:
        """Returns the present status.

        Raises:
            StudyError: the storage does not answer, or there is no data yet.
        """
        summary = _summary(self.directory) if self.directory else None
        if self.shared is None:
            if summary is None:
                raise StudyError("nothing has been written yet", where=self.name, remedy="wait until the run has begun")
            return saved_status(summary)
        observed = self._observed(self.shared)
        found = self._status(observed, summary)
        return found if self.store is None else found.model_copy(update={"evaluations": len(list(EvaluationCache(self.store).keys()))})

    def _observed(self, shared: SharedStudy) -> Observed:
        try:
            trials = counted(shared.study.get_trials(deepcopy=False))
            total = int(str(shared.study.user_attrs.get(TOTAL, 0)))
            entries = shared.registry.entries()
            return Observed(trials, total, entries, tuple(_worker_status(entry, shared) for entry in entries))
        except OUTAGES as error:
            remedy = "check that the database runs"
            raise StudyError(f"the storage does not answer ({reason(error)})", where=self.name, remedy=remedy) from None

    def _status(self, observed: Observed, summary: StudySummary | None) -> StudyStatus:
        if observed.spent and summary and summary.finished and len(summary.trials) == len(observed.ended):
            return saved_status(summary).model_copy(update={"workers": observed.workers})
        return live_status(observed, name=self.name, alone=self.directory is None, resume=self._resume(summary))

    def _resume(self, summary: StudySummary | None) -> str:
        if summary and summary.resume_command:
            return summary.resume_command
        return f"optimize resume {shlex.quote(str(self.directory.path))}" if self.directory else ""


def watch_directory(directory: StudyDirectory, storage: str = "") -> StudyReader:
    """Returns the study in a directory, with its storage in the directory or in a database.

    Args:
        directory: study directory.
        storage: database URL, needed if the URL in the saved configuration lacks a password.

    Raises:
        StudyError: the directory is no study, its journal is damaged, or its database does not answer, and there is no summary.
    """
    with study_errors():
        directory.open()
    try:
        return StudyReader(str(directory.path), _shared_of(directory, storage), directory)
    except StudyError:
        if _summary(directory) is None:
            raise
        return StudyReader(str(directory.path), None, directory)


def watch_database(storage: str, study: str, store: Store | None = None) -> StudyReader:
    """Returns the study with this name in a database. Raises the exceptions of ``open_database_study``."""
    return StudyReader(study, open_database_study(storage, study, create=False), store=store)


def _shared_of(directory: StudyDirectory, storage: str = "") -> SharedStudy:
    """Returns the shared storage of the study in a directory, read-only. Raises the exceptions of ``watch_directory``."""
    places = Config.from_yaml(directory.settings).places
    if places.storage:
        return open_database_study(storage or places.storage, places.study_name, create=False)
    return open_local_study(directory, create=False)


def _summary(directory: StudyDirectory) -> StudySummary | None:
    """Returns the summary that the last run wrote, or None if there is none."""
    try:
        return load_summary(directory)
    except StudyDirectoryError:
        return None


def _worker_status(entry: WorkerEntry, shared: SharedStudy) -> WorkerStatus:
    seen = max(0.0, time.time() - entry.at) if entry.at else None
    alive = shared.registry.seems_alive(entry) and (seen or 0.0) < grace_seconds()
    return WorkerStatus(
        **entry.model_dump(include={"name", "host", "pid", "trial", "finished", "failed"}),
        state=entry.state if alive else "lost",
        pictures_per_second=entry.pictures / entry.seconds if entry.pictures and entry.seconds else None,
        seen=seen,
    )
