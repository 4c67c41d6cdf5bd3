"""Merge methods by name.

A new method is one function of the signature ``MergeFunction``, with a docstring that cites its paper and equation, and one line in
``METHODS``.
"""

from __future__ import annotations

from optimizer.merging.methods.method import Cost, ElectOn, Majority, MergeFunction, Method, Normalise, Parameter, Rescale, Settings, Side
from optimizer.merging.methods.table import METHODS

__all__ = [
    "METHODS",
    "Cost",
    "ElectOn",
    "Majority",
    "MergeFunction",
    "Method",
    "Normalise",
    "Parameter",
    "Rescale",
    "Settings",
    "Side",
]
