"""Preservation: how much of each source's effect survives in a merge, and how much of a source leaks into the prompts of others."""

from __future__ import annotations

from objectives.preservation.effects import Effects, others
from objectives.preservation.identifiable import standard_errors, unidentifiable
from objectives.preservation.leakage import leakage, leaks
from objectives.preservation.objective import PreservationObjective
from objectives.preservation.separation import SeparationObjective
from objectives.preservation.shares import Moments, mean_shares, moments, shares

__all__ = [
    "Effects",
    "Moments",
    "PreservationObjective",
    "SeparationObjective",
    "leakage",
    "leaks",
    "mean_shares",
    "moments",
    "others",
    "shares",
    "standard_errors",
    "unidentifiable",
]
