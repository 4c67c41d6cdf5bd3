"""Heap trimming between trials: returns freed memory to the operating system, to bound the memory of long runs."""

from __future__ import annotations

import ctypes
import sys
from functools import cache


def trim_heap() -> None:
    """Returns freed heap memory to the operating system, if the C library supports it (glibc's ``malloc_trim``).

    The Gaussian process allocates matrices of growing sizes, which fragments the heap by about a quarter of a megabyte per trial.
    """
    if trim := _trim():
        trim(0)


@cache
def _trim() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
