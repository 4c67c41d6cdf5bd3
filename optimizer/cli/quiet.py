"""Hushing: what libraries tell developers stays out of a user's terminal; what this software warns of becomes one plain line."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TextIO

from rich.console import Console

from studies import BrokenEvaluationWarning

_CHATTY = ("torch.utils._pytree",)  # of what it will no longer take from torchao one day
_OWN = (BrokenEvaluationWarning,)


def hush(console: Console) -> None:
    """Silence the warnings, log lines and progress bars of libraries, from before their import on; ``-W`` and PYTHONWARNINGS win."""
    # Not "error" either: what these libraries log so they raise as well, and that becomes the one line that is told.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "critical")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())  # else Python prints warnings of libraries that configure no logging, such as open_clip
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    if sys.warnoptions:
        return
    warnings.simplefilter("ignore")
    for category in _OWN:
        warnings.simplefilter("always", category)

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
    ) -> None:
        console.print(f"warning: {message}", soft_wrap=True, markup=False, highlight=False)

    warnings.showwarning = show
