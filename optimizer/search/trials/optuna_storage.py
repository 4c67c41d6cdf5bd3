"""Access to what Optuna keeps private: the storage of a study, the ids of studies and trials, its tables, its lock of a journal.

No other file names any of these, so that a new version of Optuna is looked through in one place.
"""

from __future__ import annotations

import copy

import optuna
from optuna.storages import BaseStorage
from optuna.storages._rdb import models as tables
from optuna.storages.journal._file import BaseJournalFileLock as JournalLock
from optuna.trial import FrozenTrial

__all__ = ["JournalLock", "id_of", "storage_of", "study_id_of", "tables", "with_id"]


def storage_of(study: optuna.Study) -> BaseStorage:
    """Returns the storage of a study, whose methods set single values of single trials."""
    return study._storage


def study_id_of(study: optuna.Study) -> int:
    """Returns the id of a study in its storage."""
    return int(study._study_id)


def id_of(trial: FrozenTrial) -> int:
    """Returns the id of a trial in its storage, where trials of all studies are counted."""
    return int(trial._trial_id)


def with_id(trial: FrozenTrial, number: int, trial_id: int) -> FrozenTrial:
    """Returns the trial with another number, and another id in its storage."""
    found = copy.copy(trial)
    found.number, found._trial_id = number, trial_id
    return found
