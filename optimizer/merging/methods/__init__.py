"""Merge methods by name.

A new method is one file and one line: the file holds a function of the signature ``MergeFunction``, whose docstring cites its paper and
equation, the parameters that only it has, and its ``Method``; the line stands in ``table.py``. Everything else derives from these.
"""

from __future__ import annotations

from optimizer.merging.methods.method import Cost, MergeFunction, Method, Need
from optimizer.merging.methods.needs import AVAILABLE, LIVE, check_needs
from optimizer.merging.methods.parameter import Parameter
from optimizer.merging.methods.table import METHODS, PARAMETERS

__all__ = ["AVAILABLE", "LIVE", "METHODS", "PARAMETERS", "Cost", "MergeFunction", "Method", "Need", "Parameter", "check_needs"]
