"""``optimize repair``: build the journal of a damaged study again."""

from __future__ import annotations

from pathlib import Path

from optimizer.jobs.saved_studies import repair_study


def repair(directory: Path) -> int:
    """Check a study, and rebuild a damaged or missing journal from the evaluations.

    Nothing is deleted: what is damaged is kept under another name. A trial whose evaluation is lost is evaluated again by the next run.

    Args:
        directory: the study directory; no run may be working in it.
    """
    for line in repair_study(directory):
        print(line)
    return 0
