"""Progress of one job on a terminal: a bar on stderr, which disappears when the job ends."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(title: str, errors: Console) -> Iterator[Callable[[int, int], None]]:
    """Yields the callback that advances the bar, with the number of finished steps and of all; off a terminal nothing is shown."""
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task(title)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


@contextmanager
def solving_bar(errors: Console) -> Iterator[Callable[[str, int, int, float], None]]:
    """Yields the callback that shows what a solver does, with its loss and the time left; off a terminal nothing is shown.

    The first Ctrl-C while the block runs makes the callback raise ``Enough``, which ends a training and keeps what it has reached; the
    second interrupts the process.
    """
    from optimizer.calibration.solve import Enough  # imported here because it imports torch, which most commands with a bar do not need

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"), TimeRemainingColumn())
    asked = False

    def caught(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, previous)

    previous = signal.signal(signal.SIGINT, caught)
    try:
        with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
            bars: dict[str, TaskID] = {}

            def show(what: str, done: int, total: int, loss: float) -> None:
                if what not in bars:
                    bars[what] = progress.add_task(what, total=total)
                text = what if math.isnan(loss) else f"{what}, loss {loss:.3f}"
                progress.update(bars[what], description=text, completed=done, total=total)
                if asked:
                    raise Enough

            yield show
    finally:
        signal.signal(signal.SIGINT, previous)
