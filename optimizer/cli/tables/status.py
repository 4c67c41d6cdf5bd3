"""What ``optimize status`` prints for people."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from optimizer.search.status import StudyStatus, WorkerStatus

_UNKNOWN = "–"


def status_line(found: StudyStatus) -> str:
    """The status on one line, for a log."""
    there = sum(worker.state != "lost" for worker in found.workers)
    parts = [f"{found.state} {_progress(found)}", f"best {_best(found)}", f"{there} {'worker' if there == 1 else 'workers'}"]
    return " · ".join([*parts, *([f"ETA {_time(found.eta)}"] if found.eta is not None else [])])


def status_page(found: StudyStatus) -> Group:
    """The status as a list of facts, then a table of the workers."""
    rows = {
        "study": found.study,
        "state": found.state,
        "trials": _progress(found),
        "recipes": str(found.recipes),
        "budget": str(found.budget),
        "failed": str(found.failed),
        "finished": "yes" if found.finished else "no",
        "best": _best(found),
        "stack": _score(found.stack),
        "naive": _score(found.naive),
        "ETA": _time(found.eta),
        **({"stored": f"{found.evaluations} evaluations"} if found.evaluations is not None else {}),
        "file": found.file or _UNKNOWN,
        "resume": found.resume or _UNKNOWN,
    }
    lines = [Text(f"{name:>9}  {value}") for name, value in rows.items()]
    return Group(*lines, _table(found.workers)) if found.workers else Group(*lines)


def _table(workers: tuple[WorkerStatus, ...]) -> Table:
    table = Table("worker", "state", "trial", "finished", "failed", "pictures/s", "seen")
    for column in table.columns[2:]:
        column.justify = "right"
    for worker in workers:
        trial = _UNKNOWN if worker.trial is None else str(worker.trial)
        speed = _UNKNOWN if worker.pictures_per_second is None else f"{worker.pictures_per_second:.2f}"
        seen = _UNKNOWN if worker.seen is None else f"{_time(worker.seen)} ago"
        table.add_row(Text(f"{worker.host} {worker.pid}"), Text(worker.state), trial, str(worker.finished), str(worker.failed), speed, seen)
    return table


def _progress(found: StudyStatus) -> str:
    more = [f"{count} {what}" for count, what in ((found.running, "running"), (found.failed, "failed")) if count]
    return ", ".join([f"{found.ended} of {found.trials or _UNKNOWN}", *more])


def _best(found: StudyStatus) -> str:
    return _UNKNOWN if found.best is None else f"{found.best:.3f} ({found.best_label})"


def _score(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.3f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return _UNKNOWN
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
