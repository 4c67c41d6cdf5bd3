"""Terminates the workers that a run has started when the run ends, in whatever way it ends."""

from __future__ import annotations

import os
import signal
import sys
from threading import Thread

STARTED_BY_RUN = "MULTILORA_TIED"
"""Environment variable that a run sets for its workers."""


def exit_with_parent() -> None:
    """Terminates this process by SIGTERM when the run that started it has ended; no effect if no run started it."""
    if os.environ.get(STARTED_BY_RUN):
        Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    # Reads without Python's buffer: a thread that holds the buffer's lock at interpreter shutdown causes a fatal error.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
