"""What a run looks like in the terminal: one bar with ETA and best-so-far on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Thread
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from optimizer.cli.time_left import TimeLeft, TimeLeftColumn
from optimizer.search.labels import NAIVE, is_alone
from optimizer.search.observer import Stopped
from studies.records import TrialRecord


class Display:
    """An ``Observer`` for people. Ctrl-C once raises ``Stopped`` at the next picture batch; twice ends the process."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stopping: int | None = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._left = TimeLeft(0)
        self._trials = 0
        self._ended = 0
        self._part = 0.0
        self._searching = False
        self._solving = ""
        self._best: float | None = None
        self._naive: float | None = None
        self._answers: SimpleQueue[str | None] = SimpleQueue()
        self._answered = Event()

    @contextmanager
    def watching(self) -> Iterator[Display]:
        """Show progress and catch SIGINT and SIGTERM while the block runs."""
        speaker = Thread(target=self._speak, daemon=True)
        speaker.start()
        previous = {number: signal.signal(number, self._caught) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if self.console.is_terminal:
                with self._bar() as self._progress:
                    yield self
            else:
                yield self
        finally:
            self._progress = None
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._answers.put(None)
            speaker.join()

    def stage(self, name: str, total: int) -> None:
        """A new bar for a new stage."""
        self._trials, self._ended, self._searching = total, 0, name == "search"
        self._left = TimeLeft(total)
        if self._progress:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(name, total=total, detail="", left=self._left)
        else:
            self.note(f"{name}: {total} {'trials' if self._searching else 'picture sets'}")
        self._part = 0.0

    def pictures(self, done: int, total: int) -> None:
        """Advance by a fraction of a trial; the place where a stop takes effect."""
        self._left.work()
        if self._progress and self._task is not None:
            fraction = done / total
            if not self._searching:
                self._left.advance(fraction - self._part)
                self._progress.advance(self._task, fraction - self._part)
            self._part = 0.0 if fraction >= 1 else fraction
        self._stop_if_asked()

    def solving(self, what: str, done: int, total: int, loss: float) -> None:
        """Show what a solver does beside the bar, and off a terminal that it begins; a place where a stop takes effect."""
        self._left.solve()
        if self._progress and self._task is not None:
            told = f"{what} {done}/{total}" + ("" if math.isnan(loss) else f", loss {loss:.3f}")
            self._progress.update(self._task, detail=told if done < total else self._standing())
        elif what != self._solving:
            self.note(f"solving a merge: {what}")
        self._solving = what
        self._stop_if_asked()

    def waiting(self, seconds: float) -> None:
        """Sleep, unless a stop was or is asked for."""
        until = time.monotonic() + seconds
        while self.stopping is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))
        self._stop_if_asked()

    def trial(self, record: TrialRecord) -> None:
        """One more trial is on disk."""
        value = record.evaluation.score if record.evaluation else None
        self._ended += 1
        self._left.advance()
        if value is not None and not is_alone(record.label) and record.evaluation and record.evaluation.feasible:
            self._best = value if self._best is None else max(self._best, value)
        if record.label == NAIVE:
            self._naive = value
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=self._ended, detail=self._standing(), refresh=True)
        else:
            result = f"{value:.3f}" if value is not None else f"failed: {record.error}"
            found = record.evaluation
            result = ", ".join([result, *(["pruned"] if found and found.pruned else []), *(found.misses if found else [])])
            self.note(f"{self._ended}/{self._trials} {record.label or f'trial {record.number}'}: {result}")

    def note(self, message: str) -> None:
        """A line above the bar; one line, however narrow the terminal."""
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def _stop_if_asked(self) -> None:
        if self.stopping is not None:
            self._answered.wait()
            raise Stopped

    def _standing(self) -> str:
        best = f"best {self._best:.2f}" if self._best is not None else ""
        return f"{best} · naive {self._naive:.2f}" if self._naive is not None else best

    def _bar(self) -> Progress:
        columns = (
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("[bold]{task.fields[detail]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeLeftColumn(),
        )
        return Progress(*columns, console=self.console, transient=True)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.stopping is not None:
            raise SystemExit(128 + number)
        self.stopping = number
        self._answers.put("stopping after this batch; once more to leave at once")

    def _speak(self) -> None:
        """Print the answers to signals, in a thread of its own: a handler may have interrupted a line on its way to the same stream, which
        takes no second one meanwhile."""
        while (answer := self._answers.get()) is not None:
            try:
                self.note(answer)
            finally:
                self._answered.set()
