"""Study status: progress of a study, read from its storage while workers run; read-only and without torch."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict

from optimizer.errors import StudyError
from optimizer.search.config import Config
from optimizer.search.labels import LABEL, NAIVE, STACK, TOTAL, is_alone, is_baseline, source_of
from optimizer.search.study_errors import study_errors
from optimizer.search.workers.claims import counted
from optimizer.search.workers.registry import WorkerEntry
from optimizer.search.workers.retry import OUTAGES, reason
from optimizer.search.workers.storage import SharedStudy, grace_seconds, open_database_study, open_local_study
from studies import EvaluationCache, StudyDirectory, StudyDirectoryError, StudySummary, load_summary
from studies.store import Store

State = Literal["loading", "searching", "confirming", "done", "stopped"]


class WorkerStatus(BaseModel):
    """Status of one worker.

    Attributes:
        name: unique name in the study.
        host: host name of its machine.
        pid: process id on that machine.
        state: ``loading``, ``working``, ``waiting``, or ``lost`` for a worker that ended without signing off.
        trial: number of the trial that it evaluates.
        finished: number of trials that it has evaluated.
        failed: number of those trials that failed.
        pictures_per_second: average rate since its start; None before its first picture.
        seen: seconds since its last heartbeat by the clocks of both machines; None if unknown.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    host: str
    pid: int
    state: str
    trial: int | None
    finished: int
    failed: int
    pictures_per_second: float | None
    seen: float | None


class StudyStatus(BaseModel):
    """Status of a study. The scores are search scores.

    Attributes:
        study: title of the study, or its name in a database before it has one.
        recipes: number of ended trials beyond the baselines.
        budget: maximum number of trials beyond the baselines.
        failed: number of failed trials.
        finished: whether the study is complete.
        best: score of the best merge; of the exported merge if the study is finished.
        stack: score of all sources at full strength.
        naive: score of the equal-weight merge.
        file: exported file, relative to the study directory; empty before the export.
        resume: command that resumes a stopped study.
        state: ``loading``, ``searching``, ``confirming``, ``done``, or ``stopped`` if no worker is active.
        trials: maximum number of trials, baselines included; 0 if not known yet.
        ended: number of ended trials.
        running: number of trials being evaluated.
        best_label: label of the best merge, or its trial number.
        eta: estimated seconds until all trials have ended, at the present rate; None if unknown.
        evaluations: number of finished evaluations in the store, if requested.
        workers: status of the workers.
    """

    model_config = ConfigDict(frozen=True)

    study: str
    recipes: int
    budget: int
    failed: int
    finished: bool
    best: float | None
    stack: float | None
    naive: float | None
    file: str
    resume: str
    state: State
    trials: int
    ended: int
    running: int
    best_label: str
    eta: float | None = None
    evaluations: int | None = None
    workers: tuple[WorkerStatus, ...] = ()


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
            return _saved_status(summary)
        try:
            trials = counted(self.shared.study.get_trials(deepcopy=False))
            attributes = self.shared.study.user_attrs
            workers = tuple(self._worker(entry) for entry in self.shared.registry.entries())
        except OUTAGES as error:
            remedy = "check that the database runs"
            raise StudyError(f"the storage does not answer ({reason(error)})", where=self.name, remedy=remedy) from None
        found = self._live_status(trials, attributes, workers, summary)
        return found if self.store is None else found.model_copy(update={"evaluations": len(list(EvaluationCache(self.store).keys()))})

    def _worker(self, entry: WorkerEntry) -> WorkerStatus:
        seen = max(0.0, time.time() - entry.at) if entry.at else None
        alive = self.shared is not None and self.shared.registry.seems_alive(entry) and (seen or 0.0) < grace_seconds()
        return WorkerStatus(
            **entry.model_dump(include={"name", "host", "pid", "trial", "finished", "failed"}),
            state=entry.state if alive else "lost",
            pictures_per_second=entry.pictures / entry.seconds if entry.pictures and entry.seconds else None,
            seen=seen,
        )

    def _live_status(
        self,
        trials: Sequence[FrozenTrial],
        attributes: Mapping[str, object],
        workers: tuple[WorkerStatus, ...],
        summary: StudySummary | None,
    ) -> StudyStatus:
        total = int(str(attributes.get(TOTAL, 0)))
        ended = [t for t in trials if t.state.is_finished()]
        running = sum(t.state == TrialState.RUNNING for t in trials)
        spent = 0 < total <= len(ended) and not running
        if spent and summary and summary.finished and len(summary.trials) == len(ended):
            return _saved_status(summary).model_copy(update={"workers": workers})
        labels = [str(t.user_attrs.get(LABEL, "")) for t in trials]
        count = sum(map(is_baseline, labels))
        scores = {str(t.user_attrs.get(LABEL) or f"trial {t.number}"): t.value for t in ended if t.state == TrialState.COMPLETE}
        merges = {label: value for label, value in scores.items() if value is not None and not is_alone(label)}
        best = max(merges, key=lambda label: merges[label], default="")
        state = _state(total, spent, workers, alone=self.directory is None)
        return StudyStatus(
            study=" + ".join(source_of(label) for label in labels if is_alone(label)) or self.name,
            recipes=max(0, len(ended) - count),
            budget=max(0, total - count),
            failed=sum(t.state == TrialState.FAIL for t in ended),
            finished=state == "done",
            best=merges.get(best),
            stack=scores.get(STACK),
            naive=scores.get(NAIVE),
            file="",
            resume=self._resume(summary) if state == "stopped" else "",
            state=state,
            trials=total,
            ended=len(ended),
            running=running,
            best_label=best,
            eta=_eta(total - len(ended), self.shared.registry.entries() if self.shared else (), workers) if state == "searching" else None,
            workers=workers,
        )

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
        return StudyReader(str(directory.path), shared_of(directory, storage), directory)
    except StudyError:
        if _summary(directory) is None:
            raise
        return StudyReader(str(directory.path), None, directory)


def watch_database(storage: str, study: str, store: Store | None = None) -> StudyReader:
    """Returns the study with this name in a database. Raises the exceptions of ``open_database_study``."""
    return StudyReader(study, open_database_study(storage, study, create=False), store=store)


def shared_of(directory: StudyDirectory, storage: str = "") -> SharedStudy:
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


def _saved_status(summary: StudySummary) -> StudyStatus:
    """Returns the status of a study without active workers, from the last run's summary."""
    scores = {t.label: t.evaluation.score for t in summary.trials if t.evaluation}
    best = summary.best
    return StudyStatus(
        study=summary.title,
        recipes=max(0, len(summary.trials) - summary.baselines),
        budget=summary.budget or 0,
        failed=sum(t.evaluation is None for t in summary.trials),
        finished=summary.finished is not None,
        best=best.evaluation.score if best and best.evaluation else None,
        stack=scores.get(STACK),
        naive=scores.get(NAIVE),
        file=summary.file,
        resume=summary.resume_command,
        state="stopped" if summary.finished is None else "done",
        trials=max(len(summary.trials), summary.baselines + (summary.budget or 0)),
        ended=len(summary.trials),
        running=0,
        best_label=(best.label or f"trial {best.number}") if best else "",
    )


def _state(total: int, spent: bool, workers: Sequence[WorkerStatus], *, alone: bool) -> State:
    """Returns the state of the study; ``alone``: no study directory is known, so that confirmation and exports cannot be observed."""
    active = {worker.state for worker in workers} - {"lost"}
    if spent and alone:
        return "done"
    if not active:
        return "stopped"
    if spent:
        return "confirming"
    return "loading" if active == {"loading"} or not total else "searching"


def _eta(left: int, entries: Sequence[WorkerEntry], workers: Sequence[WorkerStatus]) -> float | None:
    """Returns the estimated seconds for the remaining trials at the average rate of the active workers, or None."""
    active = {worker.name for worker in workers if worker.state != "lost"}
    rate = sum(m.finished / m.seconds for m in entries if m.name in active and m.seconds)
    return left / rate if rate else None
