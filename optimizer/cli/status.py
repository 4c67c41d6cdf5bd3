"""``optimize status``: how far a study is, also while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from optimizer.cli.quiet import hush
from optimizer.errors import StudyError, UsageError
from optimizer.jobs.artifacts import open_artifacts

if TYPE_CHECKING:
    from optimizer.search.status import Standing, Watched, WorkerStanding

_PAUSE = 2.0
_UNKNOWN = "–"
# What changes with every look and is no news.
_RESTLESS = {"eta", "workers"}


def status(
    directory: Path | None = None,
    *,
    storage: str = "",
    study: str = "",
    artifacts: str = "",
    watch: bool = False,
    as_json: Annotated[bool, Parameter("--json")] = False,
) -> int:
    """Show the progress of a study and its workers, also while it runs.

    Args:
        directory: the study directory.
        storage: the postgresql://… database of a study whose directory is on another machine.
        study: its name there.
        artifacts: folder or s3://BUCKET/PREFIX where its evaluations lie; they are counted.
        watch: look again every two seconds until the study is done.
        as_json: print JSON for machines.
    """
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    watched = _watched(directory, storage, study, artifacts)
    console = Console(highlight=False)
    if not watch:
        found = watched.look()
        if as_json:
            print(found.model_dump_json())
        else:
            console.print(_shown(found), soft_wrap=True)
    elif console.is_terminal and not as_json:
        with Live(console=console, auto_refresh=False) as live:
            for found in _looks(watched, errors):
                live.update(_shown(found), refresh=True)
    else:
        _tell_changes(watched, errors, as_json=as_json)
    return 0


def _watched(directory: Path | None, storage: str, study: str, artifacts: str) -> Watched:
    from optimizer.search.status import watch_database, watch_directory
    from studies import StudyDirectory

    if directory is not None and not study:
        return watch_directory(StudyDirectory(directory), storage)
    if directory is not None or not (storage and study):
        raise UsageError("which study is meant cannot be told", remedy="give its directory, or --storage and --study together")
    return watch_database(storage, study, open_artifacts(artifacts) if artifacts else None)


def _looks(watched: Watched, errors: Console) -> Iterator[Standing]:
    """One look after the other until the study is done; a storage that goes away is waited for."""
    found, told = watched.look(), False
    yield found
    while found.state != "done":
        time.sleep(_PAUSE)
        try:
            found = watched.look()
        except StudyError as error:
            if not told:
                errors.print(f"warning: {error}; looking again", markup=False, soft_wrap=True)
            told = True
        else:
            told = False
            yield found


def _tell_changes(watched: Watched, errors: Console, *, as_json: bool) -> None:
    """One line whenever something has happened."""
    before = None
    for found in _looks(watched, errors):
        news = (found.model_dump(exclude=_RESTLESS), [(w.name, w.state) for w in found.workers])
        if news != before:
            print(found.model_dump_json() if as_json else _line(found), flush=True)
        before = news


def _line(found: Standing) -> str:
    there = sum(worker.state != "lost" for worker in found.workers)
    parts = [f"{found.state} {_progress(found)}", f"best {_best(found)}", f"{there} {'worker' if there == 1 else 'workers'}"]
    return " · ".join([*parts, *([f"ETA {_time(found.eta)}"] if found.eta is not None else [])])


def _shown(found: Standing) -> Group:
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


def _table(workers: tuple[WorkerStanding, ...]) -> Table:
    table = Table("worker", "state", "trial", "finished", "failed", "pictures/s", "seen")
    for column in table.columns[2:]:
        column.justify = "right"
    for worker in workers:
        trial = _UNKNOWN if worker.trial is None else str(worker.trial)
        speed = _UNKNOWN if worker.pictures_per_second is None else f"{worker.pictures_per_second:.2f}"
        seen = _UNKNOWN if worker.seen is None else f"{_time(worker.seen)} ago"
        table.add_row(Text(f"{worker.host} {worker.pid}"), Text(worker.state), trial, str(worker.finished), str(worker.failed), speed, seen)
    return table


def _progress(found: Standing) -> str:
    more = [f"{count} {what}" for count, what in ((found.running, "running"), (found.failed, "failed")) if count]
    return ", ".join([f"{found.ended} of {found.trials or _UNKNOWN}", *more])


def _best(found: Standing) -> str:
    return _UNKNOWN if found.best is None else f"{found.best:.3f} ({found.best_label})"


def _score(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.3f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return _UNKNOWN
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
