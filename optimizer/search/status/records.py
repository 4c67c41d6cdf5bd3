"""Status records: how far a study and its workers are."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

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
