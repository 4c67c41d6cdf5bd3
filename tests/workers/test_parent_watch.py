"""A worker that a run has started ends by itself in silence, and ends with the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from optimizer.search.workers.parent_watch import STARTED_BY_RUN

PROGRAM = (
    "from optimizer.search.workers.parent_watch import exit_with_parent; import time; exit_with_parent(); time.sleep({}); print('ended')"
)


def started(seconds: float) -> subprocess.Popen[str]:
    """A worker whose run holds its standard input open."""
    command = [sys.executable, "-c", PROGRAM.format(seconds)]
    pipe, environment = subprocess.PIPE, os.environ | {STARTED_BY_RUN: "1"}
    return subprocess.Popen(command, text=True, env=environment, stdin=pipe, stdout=pipe, stderr=pipe)


def test_one_whose_work_is_done_ends_while_the_run_goes_on() -> None:
    with started(0.2) as worker:
        assert worker.stdout is not None
        assert worker.stdout.read() == "ended\n"
        assert worker.wait(30) == 0
        assert worker.stderr is not None
        assert worker.stderr.read() == ""


def test_one_whose_run_is_gone_ends_as_sigterm_ends_it() -> None:
    with started(60) as worker:
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.wait(30) == -signal.SIGTERM
