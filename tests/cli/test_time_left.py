"""The time left that a progress bar shows: the mean rate so far, without merges that are solved once."""

from __future__ import annotations

import io
import os

import pytest
from rich.console import Console
from rich.progress import Progress

from optimizer.cli.time_left import TimeLeft, TimeLeftColumn


class Clock:
    """A clock that only moves when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_mean_rate_counts_and_time_runs_down(clock: Clock) -> None:
    left = TimeLeft(10, clock)
    clock.now += 50  # loading
    left.work()
    assert left.seconds is None
    for _ in range(2):
        clock.now += 60
        left.work()
        left.advance()
    assert left.seconds == pytest.approx(8 * 60)
    clock.now += 20
    assert left.seconds == pytest.approx(8 * 60 - 20)
    clock.now += 10_000
    assert left.seconds == 0


def test_trials_of_an_earlier_run_are_no_rate(clock: Clock) -> None:
    left = TimeLeft(10, clock)
    left.advance(6)
    assert left.seconds is None
    left.work()
    clock.now += 60
    left.advance()
    assert left.seconds == pytest.approx(3 * 60)


def test_solving_is_not_expected_of_later_trials(clock: Clock) -> None:
    left = TimeLeft(10, clock)
    left.work()
    clock.now += 10
    left.advance()
    for _ in range(3):
        left.solve()
        clock.now += 100
        assert left.seconds == pytest.approx(9 * 10)
    left.work()
    clock.now += 10
    left.advance()
    assert left.seconds == pytest.approx(8 * 10)


def test_how_the_time_is_written(clock: Clock) -> None:
    left, screen = TimeLeft(3, clock), io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60, _environ=dict(os.environ) | {"TERM": "xterm"})
    with Progress(TimeLeftColumn(), console=console) as progress:
        progress.add_task("search", left=left)
        (task,) = progress.tasks
        column = TimeLeftColumn()
        assert column.render(task).plain == "-:--:--"
        left.work()
        clock.now += 3665
        left.advance()
        assert column.render(task).plain == "2:02:10"
