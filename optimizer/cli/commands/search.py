"""``optimize`` and ``optimize resume``: the main job."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from optimizer.cli.quiet import hush
from optimizer.cli.tables.verdict import print_verdict
from optimizer.jobs.saved_studies import resumed_config
from optimizer.search.config import Config, checked

STOPPED_EARLY = 4
"""Exit code of a run that ended before its budget was spent."""


def run_and_tell(config: Config) -> int:
    """Run the main job with progress on stderr, then print the verdict."""
    checked(config)
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    with errors.status("loading…") if errors.is_terminal else nullcontext():
        from optimizer.cli.display import Display
        from optimizer.search.observer import Stopped
        from optimizer.search.run import run
    display = Display(errors)
    with display.watching():
        try:
            study = run(config, display)
        except Stopped:  # once more, while the storage was away
            return 128 + (display.stopping or 0)
    print_verdict(study.summary, study.directory, study.best, Console(highlight=False))
    if study.complete and study.best:
        return 0
    return 128 + display.stopping if display.stopping is not None else STOPPED_EARLY


def resume(directory: Path, *, budget: str | None = None, metric: tuple[str, ...] = ()) -> int:
    """Continue a study that was stopped, or extend a finished one with --budget.

    Args:
        directory: the study directory.
        budget: a new budget, or +N for N recipes more; default: the study's own.
        metric: the study's --metric, if it has one: its code is imported only if you name it.
    """
    return run_and_tell(resumed_config(directory, budget, metric))
