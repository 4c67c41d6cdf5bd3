"""Progress of one job on a terminal: a bar on stderr, which disappears when the job ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def progress_bar(title: str, errors: Console) -> Iterator[Callable[[int, int], None]]:
    """Yields the callback that advances the bar, with the number of finished steps and of all; off a terminal nothing is shown."""
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task(title)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
