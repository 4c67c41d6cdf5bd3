"""Housekeeping between trials: memory that is free goes back to the system, so that a night's run stays as small as it began."""

from __future__ import annotations

import ctypes
import sys
from functools import cache


def tidy() -> None:
    """Give what the C library keeps of freed memory back, where it can be asked to (glibc).

    A Gaussian process allocates and frees matrices of ever greater sizes, between which the heap grows by a quarter of a megabyte a trial.
    """
    if trim := _trim():
        trim(0)


@cache
def _trim() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
