"""``optimize repair``: build the journal of a damaged study again."""

from __future__ import annotations

from pathlib import Path

from optimizer.errors import UsageError
from optimizer.search.config import Config
from optimizer.search.study_errors import study_errors
from studies import StudyDirectory


def repair(directory: Path) -> int:
    """Check a study, and rebuild a damaged or missing journal from the evaluations.

    Nothing is deleted: what is damaged is kept under another name. A trial whose evaluation is lost is evaluated again by the next run.

    Args:
        directory: the study directory; no run may be working in it.
    """
    with study_errors():
        study = StudyDirectory(directory).open()
    if Config.from_yaml(study.settings).places.storage:
        remedy = "restore the database from its backup"
        raise UsageError("the study is in a database and has no journal here", where=directory, remedy=remedy)
    from optimizer.search.proposals.sampler import quiet
    from optimizer.search.trials.repair import repair as repaired

    quiet()
    for line in repaired(study).lines():
        print(line)
    return 0
