"""Put on PYTHONPATH, this makes a process's disk slow: what is to be durable, or to appear, takes up to a twentieth of a second."""

from __future__ import annotations

import os
import random
import time
from typing import Any

_fsync, _replace = os.fsync, os.replace


def fsync(descriptor: Any) -> None:
    """``os.fsync`` of a slow disk."""
    time.sleep(random.uniform(0, 0.05))
    _fsync(descriptor)


def replace(*names: Any, **options: Any) -> None:
    """``os.replace`` of a slow disk."""
    time.sleep(random.uniform(0, 0.05))
    _replace(*names, **options)


os.fsync, os.replace = fsync, replace
