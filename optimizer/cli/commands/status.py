"""``optimize status``: how far a study is, also while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live

from optimizer.cli.quiet import hush

if TYPE_CHECKING:
    from optimizer.search.status import StudyStatus

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
    from optimizer.cli.tables.status import status_page
    from optimizer.jobs.watch_study import find_study, follow

    reader = find_study(directory, storage, study, artifacts)
    console, note = Console(highlight=False), partial(errors.print, markup=False, soft_wrap=True)
    if not watch:
        found = reader.read()
        if as_json:
            print(found.model_dump_json())
        else:
            console.print(status_page(found), soft_wrap=True)
    elif console.is_terminal and not as_json:
        with Live(console=console, auto_refresh=False) as live:
            for found in follow(reader.read, note):
                live.update(status_page(found), refresh=True)
    else:
        _print_changes(follow(reader.read, note), as_json=as_json)
    return 0


def _print_changes(readings: Iterable[StudyStatus], *, as_json: bool) -> None:
    """Print one line whenever something has happened."""
    from optimizer.cli.tables.status import status_line

    before = None
    for found in readings:
        news = (found.model_dump(exclude=_RESTLESS), [(w.name, w.state) for w in found.workers])
        if news != before:
            print(found.model_dump_json() if as_json else status_line(found), flush=True)
        before = news
