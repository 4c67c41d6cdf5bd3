"""Time left of a stage: its mean rate so far, in which the time for solving merges does not count."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.progress import ProgressColumn, Task
from rich.text import Text


class TimeLeft:
    """Estimate of the time left of a stage.

    What ended before the first work of this process does not count, as in a study that is resumed. Neither does the time for solving
    merges, since each is solved once: later trials take no more of it.

    Args:
        total: number of units of the stage.
        clock: returns the present time, in seconds.
    """

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._left, self._clock = total, clock
        self._begun: float | None = None
        self._solving: float | None = None
        self._solved = 0.0
        self._done, self._took = 0.0, 0.0

    def work(self) -> None:
        """Something other than solving goes on."""
        now = self._clock()
        self._begun = now if self._begun is None else self._begun
        if self._solving is not None:
            self._solved, self._solving = self._solved + now - self._solving, None

    def solve(self) -> None:
        """A merge is being solved."""
        self._begun = self._clock() if self._begun is None else self._begun
        self._solving = self._clock() if self._solving is None else self._solving

    def advance(self, units: float = 1.0) -> None:
        """Units have ended."""
        self._left -= units
        if self._begun is not None:
            self._done, self._took = self._done + units, self._worked()

    @property
    def seconds(self) -> float | None:
        """Estimated seconds until the stage ends, apart from merges that are yet to be solved; None before there is a rate."""
        if not self._done:
            return None
        return max(0.0, self._left * self._took / self._done - (self._worked() - self._took))

    def _worked(self) -> float:
        """Returns the seconds since the first work, without those for solving."""
        assert self._begun is not None
        now = self._clock()
        return now - self._begun - self._solved - (0.0 if self._solving is None else now - self._solving)


class TimeLeftColumn(ProgressColumn):
    """Column of a progress bar with the time left of a task, whose field ``left`` is its ``TimeLeft``."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Returns the time as hours, minutes and seconds."""
        left: float | None = task.fields["left"].seconds
        if left is None:
            return Text("-:--:--", style="progress.remaining")
        minutes, seconds = divmod(round(left), 60)
        return Text(f"{minutes // 60:d}:{minutes % 60:02d}:{seconds:02d}", style="progress.remaining")
