"""Sources that are not identifiable: which ones a study leaves out of its score, and what the user is told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from studies.records import TrialRecord

_REASON = "not identifiable: alone it changes too little to be measured on these prompts"
NOTHING_MEASURABLE = "no source is identifiable: alone, each changes too little to be measured on these prompts"
REMEDY = "give their triggers (--triggers) or prompts that show them (--prompts), and check that the base is theirs"
"""Remedy if no source can be measured."""


def left_out_of(records: Iterable[TrialRecord], names: Sequence[str]) -> frozenset[int] | None:
    """Returns the indices of the sources that a study leaves out of its score, as its evaluations say; None before the first evaluation.

    What the first evaluations decided holds for the whole study, so that all its scores mean the same: a source that is left out has
    no share. Studies of earlier versions leave none out.

    Args:
        records: trials of the study.
        names: names of the sources, in order.
    """
    found = next((record.evaluation for record in records if record.evaluation), None)
    if found is None:
        return None
    return frozenset(k for k, name in enumerate(names) if name in found.sources and math.isnan(found.sources[name].preservation))


def identifiable_warnings(left_out: Iterable[int], names: Sequence[str]) -> list[str]:
    """Returns a warning for each source that does not count in the score, one line each."""
    return [f"{names[k]} is {_REASON}, so it does not count in the score; give --triggers or --prompts" for k in sorted(left_out)]
