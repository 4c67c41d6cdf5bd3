"""Time and memory of a piece of work in this process.

Time is that of the processor, so that other programs on the machine do not count.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import TypeVar

T = TypeVar("T")


def measured(work: Callable[[], T]) -> tuple[T, float, int]:
    """Does a piece of work.

    Returns:
        Its result, the seconds of the processor that it took, over all threads, and the peak of resident memory above that before, in
        bytes. Freed memory is first given back to the system, or what the work takes of it would not be seen.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, begun = _resident("VmRSS"), process_time()
    result = work()
    seconds = process_time() - begun
    return result, seconds, _resident("VmHWM") - before


def _resident(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
