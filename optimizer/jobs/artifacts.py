"""Places that a command is given: stores of evaluations and pictures."""

from __future__ import annotations

from optimizer.errors import StudyError
from studies import StudyDirectoryError
from studies.store import Store
from studies.store_urls import open_store


def open_artifacts(place: str) -> Store:
    """The store that ``--artifacts`` names; nothing is read yet.

    Raises:
        StudyError: it names none.
    """
    try:
        return open_store(place)
    except StudyDirectoryError as error:
        raise StudyError(error.problem, where="--artifacts", remedy=error.remedy) from error
