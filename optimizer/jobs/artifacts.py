"""Opening the store for evaluations and pictures that a command's ``--artifacts`` option names."""

from __future__ import annotations

from optimizer.errors import StudyError
from studies import StudyDirectoryError
from studies.store import Store
from studies.store_urls import open_store


def open_artifacts(place: str) -> Store:
    """Returns the store that ``--artifacts`` names, without reading from it.

    Raises:
        StudyError: ``place`` is not a valid store location.
    """
    try:
        return open_store(place)
    except StudyDirectoryError as error:
        raise StudyError(error.problem, where="--artifacts", remedy=error.remedy) from error
