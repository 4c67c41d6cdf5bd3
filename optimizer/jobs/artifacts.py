"""Opening the store for evaluations and pictures that a command's ``--artifacts`` option names."""

from __future__ import annotations

from optimizer.search.study_errors import study_errors
from studies.store import Store
from studies.store_urls import open_store


def open_artifacts(place: str) -> Store:
    """Returns the store that ``--artifacts`` names, without reading from it.

    Raises:
        StudyError: ``place`` is not a valid store location.
    """
    with study_errors("--artifacts"):
        return open_store(place)
