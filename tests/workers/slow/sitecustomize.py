"""Put on PYTHONPATH, this makes a process's disk slow: what is to be durable, or to appear, takes up to a twentieth of a second."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_fsync, _replace = os.fsync, os.replace


def fsync(fd: FileDescriptorLike) -> None:
    """``os.fsync`` of a slow disk."""
    time.sleep(random.uniform(0, 0.05))
    _fsync(fd)


def replace(*names: Any, **options: Any) -> None:
    """``os.replace`` of a slow disk."""
    time.sleep(random.uniform(0, 0.05))
    _replace(*names, **options)


os.fsync, os.replace = fsync, replace
