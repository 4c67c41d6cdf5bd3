"""Jobs on a study that exists: resuming it, joining it as a worker, repairing it, writing its report again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optimizer.errors import UsageError
from optimizer.search.config import Config, check_named
from optimizer.search.study_errors import study_errors
from studies import StudyDirectory


def open_study(directory: Path) -> StudyDirectory:
    """Returns an existing study directory.

    Raises:
        StudyError: the directory does not exist, or holds no study.
    """
    with study_errors():
        return StudyDirectory(directory).open()


def resumed_config(directory: Path, budget: str | int | None = None, metric: Sequence[str] = ()) -> Config:
    """Returns the configuration that continues a study where it is now.

    Args:
        directory: study directory.
        budget: new budget, or ``+N`` for N more than the study's own; None keeps the study's own.
        metric: metrics of the study, which are imported only if they are named here, too.

    Raises:
        UsageError: the directory holds no study, its configuration cannot be read, its metrics are not named, or the budget is no number.
    """
    saved = Config.from_yaml(open_study(directory).settings)
    check_named(saved.protocol.metric, metric)
    changed: dict[str, Any] = {"out": directory} | ({} if budget is None else {"budget": _budget(str(budget), saved)})
    return saved.replaced(**changed)


def _budget(text: str, saved: Config) -> int:
    number = text.removeprefix("+")
    if not (number.isascii() and number.isdigit()) or (text.startswith("+") and int(number) == 0):
        raise UsageError(f"got {text!r}", where="--budget", remedy="give a number of recipes, or +N for N more than the study has")
    return int(number) + (saved.search.budget if text.startswith("+") else 0)


def joined_config(directory: Path | None, storage: str, study: str, artifacts: str, metric: Sequence[str] = ()) -> Config:
    """Returns the configuration with which a worker joins a study.

    Args:
        directory: study directory; None for a study that is in a database only.
        storage: database URL; empty takes the study directory's own.
        study: name in the database; empty takes the study directory's own.
        artifacts: store that all machines reach; empty takes the study directory's own.
        metric: metrics of the study, which are imported only if they are named here, too.

    Returns:
        The study's configuration on this machine, or the location of one in a database.

    Raises:
        UsageError: the directory holds no study, the location is incomplete, or the study's metrics are not named.
    """
    if directory is not None:
        config = Config.from_yaml(open_study(directory).settings)
        places = config.places
        if not places.storage:
            check_named(config.protocol.metric, metric)
            return config.replaced(out=directory)
        storage, artifacts, study = storage or places.storage, artifacts or places.artifacts, study or places.study_name
    if not (storage and study and artifacts):
        remedy = "give the study's directory, or --storage, --study and --artifacts together"
        raise UsageError("where the study is cannot be told", remedy=remedy)
    return Config.of(storage=storage, study=study, artifacts=artifacts, metric=tuple(metric))


def repair_study(directory: Path) -> list[str]:
    """Checks a study and rebuilds its journal if it is damaged or missing; returns what was done, one line each.

    Raises:
        UsageError: the directory holds no study, or the study is in a database.
    """
    study = open_study(directory)
    if Config.from_yaml(study.settings).places.storage:
        remedy = "restore the database from its backup"
        raise UsageError("the study is in a database and has no journal here", where=directory, remedy=remedy)
    # Imported here because it imports Optuna, which takes longer than the checks.
    from optimizer.search.proposals.sampler import quiet
    from optimizer.search.trials.repair import repair

    quiet()
    return repair(study).lines()


def rewrite_report(directory: Path) -> Path:
    """Writes ``report.html`` from the data of the last run, and returns its path.

    Raises:
        StudyError: the directory holds no study, or the study has no summary yet.
    """
    from studies import load_summary, write_report

    study = open_study(directory)
    with study_errors():
        summary = load_summary(study)
    return write_report(summary, study)
