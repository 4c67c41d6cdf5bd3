"""Study status: progress of a study, read from its storage while workers run; read-only and without torch."""

from __future__ import annotations

from optimizer.search.status.reader import StudyReader, watch_database, watch_directory
from optimizer.search.status.records import State, StudyStatus, WorkerStatus

__all__ = ["State", "StudyReader", "StudyStatus", "WorkerStatus", "watch_database", "watch_directory"]
