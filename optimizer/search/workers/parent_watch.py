"""Workers that a run has started end with it, however it ends."""

from __future__ import annotations

import os
import signal
import sys
from threading import Thread

TIED = "MULTILORA_TIED"
"""Set by the run for its workers."""


def leave_with_parent() -> None:
    """If a run has started this process, end it as SIGTERM does as soon as that run is gone."""
    if os.environ.get(TIED):
        Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    # Past Python's buffer: a thread that holds its lock when the interpreter ends is a fatal error.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
