"""``optimize report``: the report of a study, written again."""

from __future__ import annotations

from pathlib import Path

from optimizer.jobs.saved_studies import rewrite_report


def report(directory: Path) -> int:
    """Write report.html again from the data of the study.

    Args:
        directory: the study directory.
    """
    print(rewrite_report(directory))
    return 0
