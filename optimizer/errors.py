"""Exceptions that this software raises on purpose.

OptimizerError            base class; carries a remedy
├── UsageError            the request is invalid (exit code 2)
├── AdapterError          a source file cannot be used: names file, key and remedy
├── RecipeError           a recipe cannot be read or does not fit the sources
├── BaseModelError        the base model cannot be loaded or does not fit the sources
├── StudyError            a study directory cannot be used
├── ExportError           the written file is not what was scored
├── NoFeasibleMerge       the search ended without a usable candidate (exit code 3)
└── TrialError            one candidate failed; the run goes on
"""

from __future__ import annotations

from pathlib import Path

from optimizer.text import printable


class OptimizerError(Exception):
    """Base error with the problem, its location and a remedy; its text is always one line of printable characters.

    Args:
        problem: what is wrong, with the offending value.
        where: the file, key or option that caused the error, if there is one.
        remedy: what the user can do.
    """

    exit_code = 1

    def __init__(self, problem: str, *, where: str | Path | None = None, remedy: str = "") -> None:
        self.problem, self.where, self.remedy = problem, where, remedy
        super().__init__(self._line())

    def _line(self) -> str:
        place = f"{self.where}: " if self.where is not None else ""
        return printable(f"{place}{self.problem}" + (f" — {self.remedy}" if self.remedy else ""))


class UsageError(OptimizerError):
    """The request is invalid and cannot be carried out."""

    exit_code = 2


class AdapterError(UsageError):
    """A source file is missing, broken, or of a kind that cannot be merged.

    Args:
        problem: what is wrong.
        file: the file that caused the error.
        key: the tensor or metadata key that caused the error, if there is one.
        remedy: what the user can do.
    """

    def __init__(self, problem: str, *, file: str | Path, key: str | None = None, remedy: str = "") -> None:
        self.file, self.key = Path(file), key
        super().__init__(problem, where=f"{file}: {key}" if key else file, remedy=remedy)


class RecipeError(UsageError):
    """A recipe is malformed or does not fit the sources that it is applied to."""


class BaseModelError(UsageError):
    """The base model cannot be loaded, or the sources do not fit it."""


class StudyError(UsageError):
    """A study directory cannot be written, read or continued."""


class ExportError(OptimizerError):
    """The exported file, read back, differs from the merge that was scored."""


class NoFeasibleMerge(OptimizerError):
    """No candidate could be scored."""

    exit_code = 3


class TrialError(OptimizerError):
    """One candidate could not be evaluated; it is recorded as failed and the run goes on."""
