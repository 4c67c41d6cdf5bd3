"""Translation of the errors of the package ``studies``, which knows nothing of the command line, to those of this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from optimizer.errors import StudyError
from studies import StudyDirectoryError


@contextmanager
def study_errors(where: str | None = None) -> Iterator[None]:
    """Raises ``StudyError`` in place of ``StudyDirectoryError`` while the block runs, with the same problem and remedy.

    Args:
        where: option that the user gave; default: the file or folder that the error names.

    Raises:
        StudyError: the block raised ``StudyDirectoryError``, which is its cause.
    """
    try:
        yield
    except StudyDirectoryError as error:
        raise StudyError(error.problem, where=where or error.where, remedy=error.remedy) from error
