"""``optimize dashboard``: a study in optuna-dashboard."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from optimizer.cli.quiet import hush


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
    from optimizer.jobs.watch_study import find_trials
    from optimizer.search.trials.optuna_storage import storage_of, study_id_of
    from optimizer.ui.dashboard import HOST, board

    shared, store = find_trials(directory, storage, study, artifacts)
    with board(storage_of(shared.study), store, port) as server:
        print(f"http://{HOST}:{server.server_port}/dashboard/studies/{study_id_of(shared.study)}", flush=True)
        server.serve_forever()
    return 0
