"""``optimize dashboard``: a study in optuna-dashboard."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from optimizer.cli.quiet import hush
from optimizer.errors import UsageError
from optimizer.jobs.artifacts import open_artifacts


def dashboard(directory: Path | None = None, *, storage: str = "", study: str = "", artifacts: str = "", port: int = 8080) -> int:
    """Show a study in optuna-dashboard, on this machine only, until Ctrl-C.

    Args:
        directory: the study directory.
        storage: the postgresql://… database of a study whose directory is on another machine.
        study: its name there.
        artifacts: folder or s3://BUCKET/PREFIX where its pictures lie.
        port: where to listen; a free one where it is taken.
    """
    hush(Console(stderr=True, highlight=False))
    from optimizer.search.config import Config
    from optimizer.search.status import watch_database, watch_directory
    from optimizer.ui.dashboard import HOST, board
    from studies import StudyDirectory
    from studies.store import FolderStore, Store

    store: Store | None
    if directory is not None and not study:
        here = StudyDirectory(directory)
        shared = watch_directory(here, storage).shared
        place = Config.from_yaml(here.settings).places.artifacts
        store = open_artifacts(artifacts or place) if artifacts or place else FolderStore(here.path)
    elif directory is None and storage and study:
        shared, store = watch_database(storage, study).shared, open_artifacts(artifacts) if artifacts else None
    else:
        raise UsageError("which study is meant cannot be told", remedy="give its directory, or --storage and --study together")
    if shared is None:
        raise UsageError("the trials cannot be read, only the report is left", where=directory, remedy="open report.html there")
    with board(shared.study._storage, store, port) as server:
        print(f"http://{HOST}:{server.server_port}/dashboard/studies/{shared.study._study_id}", flush=True)
        server.serve_forever()
    return 0
