"""StudyDirectory: paths of all files and folders that a run writes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from studies.atomic import TEMPORARY, write_bytes

SHEETS = "sheets"
"""Name of the contact sheets' folder, in a directory and in a store."""

_LAYOUT = frozenset(
    [
        "study.yaml",
        "journal.log",
        "evaluations",
        "images",
        "trials.csv",
        "trials.parquet",
        "summary.json",
        "report.html",
        "best",
        "routers",
        SHEETS,
        "workers",
    ]
)


class StudyDirectoryError(ValueError):
    """A study directory cannot be created, written or read.

    Args:
        problem: description of the problem.
        where: file or folder concerned.
        remedy: suggested action for the user.
    """

    def __init__(self, problem: str, *, where: str | Path, remedy: str) -> None:
        self.problem, self.where, self.remedy = problem, where, remedy
        super().__init__(f"{where}: {problem} — {remedy}")


@dataclass(frozen=True)
class StudyDirectory:
    """The layout of a study on disk; creating an instance does not access the disk.

    ::

        study.yaml            resolved configuration          journal.log   Optuna storage of one host (and its lock files)
        evaluations/          evaluation cache, trial log     images/       baselines, trials, confirmation (lossless)
        trials.csv .parquet   one row per trial               summary.json  what the report shows, as data
        report.html           the report                      best/         the winner: LoRA file, recipe, model card
        sheets/               one contact sheet per recipe    workers/      registry of the active workers
        routers/              routers of solved merges

    Attributes:
        path: path of the directory.
    """

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", Path(path))

    @property
    def settings(self) -> Path:
        """Path of ``study.yaml``; a directory that contains it is a study."""
        return self.path / "study.yaml"

    @property
    def journal(self) -> Path:
        """Path of ``journal.log``."""
        return self.path / "journal.log"

    @property
    def evaluations(self) -> Path:
        """Path of ``evaluations/``."""
        return self.path / "evaluations"

    @property
    def images(self) -> Path:
        """Path of ``images/``."""
        return self.path / "images"

    @property
    def trials_csv(self) -> Path:
        """Path of ``trials.csv``."""
        return self.path / "trials.csv"

    @property
    def trials_parquet(self) -> Path:
        """Path of ``trials.parquet``."""
        return self.path / "trials.parquet"

    @property
    def summary(self) -> Path:
        """Path of ``summary.json``."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """Path of ``report.html``."""
        return self.path / "report.html"

    @property
    def best(self) -> Path:
        """Path of ``best/``."""
        return self.path / "best"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Paths of the directory and its three folders, outermost first."""
        return (self.path, self.evaluations, self.images, self.best)

    @property
    def is_study(self) -> bool:
        """Whether a configuration is saved in the directory."""
        return self.settings.is_file()

    def create(self) -> Self:
        """Creates the folders and checks by writing that each is writable; idempotent.

        Raises:
            StudyDirectoryError: the path is a file, contains files other than a study, or cannot be written. Folders that this call
                created are removed again.
        """
        self._refuse_foreign()
        made: list[Path] = []
        place = self.path
        try:
            for place in (*_missing_parents(self.path), *self.folders):
                if _made(place):
                    made.append(place)
            for place in self.folders:
                _probe(place)
        except (OSError, ValueError) as error:
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()
            raise _unwritable(place, error) from error
        return self

    def open(self) -> Self:
        """Checks that the directory is a study, before reading it.

        Raises:
            StudyDirectoryError: the directory does not exist, or contains no ``study.yaml``.
        """
        if not self.path.is_dir():
            raise StudyDirectoryError("there is no such directory", where=self.path, remedy="check the path of the study")
        if not self.is_study:
            remedy = "name the directory that a run was given with --out"
            raise StudyDirectoryError("this is not a study, it holds no study.yaml", where=self.path, remedy=remedy)
        return self

    def inside(self, name: str) -> Path:
        """Returns the path of a file that is named relative to the study, with ``/`` between folders.

        Raises:
            StudyDirectoryError: the name is empty, absolute or leads out of the study.
        """
        parts = PurePosixPath(name).parts
        leads_out = not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name
        path = self.path.joinpath(*parts)
        if leads_out or not path.resolve().is_relative_to(self.path.resolve()):
            remedy = "name files relative to the study, such as images/picture.png"
            raise StudyDirectoryError(f"the name {name!r} leads out of the study", where=self.path, remedy=remedy)
        return path

    def _refuse_foreign(self) -> None:
        try:
            if self.is_study or not os.path.lexists(self.path):
                return
            names = sorted(entry.name for entry in self.path.iterdir())
        except (OSError, ValueError) as error:
            raise _unwritable(self.path, error) from error
        foreign = [n for n in names if n not in _LAYOUT and not n.startswith((TEMPORARY, "journal.log"))]
        if foreign:
            shown = ", ".join(foreign[:3]) + (" …" if len(foreign) > 3 else "")
            problem = f"the directory holds other files and no study ({shown})"
            raise StudyDirectoryError(problem, where=self.path, remedy="choose a new or an empty directory")


def _missing_parents(path: Path) -> list[Path]:
    return [p for p in reversed(path.absolute().parents) if not p.exists()]


def _made(folder: Path) -> bool:
    """Creates the folder unless it exists, and returns whether this call created it; safe for concurrent workers."""
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
        return False
    return True


def _probe(folder: Path) -> None:
    """Writes, flushes and removes a small file."""
    file = folder / f"{TEMPORARY}probe-{os.getpid()}"
    try:
        write_bytes(file, b"x" * 4096)
    finally:
        file.unlink(missing_ok=True)


def _unwritable(place: Path, error: OSError | ValueError) -> StudyDirectoryError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    remedy = "choose a directory that can be written, on a disk with free space"
    return StudyDirectoryError(f"the study cannot be written here ({reason.lower()})", where=place, remedy=remedy)
