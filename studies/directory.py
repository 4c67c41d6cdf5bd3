"""StudyDirectory: where everything that one run leaves behind has its place."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from studies.atomic import TEMPORARY, write_bytes

SHEETS = "sheets"
"""Folder of the contact sheets, in a directory and in a store alike."""

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
        SHEETS,
        "workers",
    ]
)


class StudyDirectoryError(ValueError):
    """A study directory cannot be created, written or read.

    Args:
        problem: what is wrong.
        where: the file or folder at fault.
        remedy: what the user can do.
    """

    def __init__(self, problem: str, *, where: str | Path, remedy: str) -> None:
        self.problem, self.where, self.remedy = problem, where, remedy
        super().__init__(f"{where}: {problem} — {remedy}")


@dataclass(frozen=True)
class StudyDirectory:
    """The layout of a study at rest; building one touches nothing on the disk.

    ::

        study.yaml            resolved configuration          journal.log   Optuna storage of one host (and its lock files)
        evaluations/          evaluation cache, trial log     images/       baselines, trials, confirmation (lossless)
        trials.csv .parquet   one row per trial               summary.json  what the report shows, as data
        report.html           the report                      best/         the winner: LoRA file, recipe, model card
        sheets/               a contact sheet a recipe        workers/      who works on it, while they do

    Attributes:
        path: the directory.
    """

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", Path(path))

    @property
    def settings(self) -> Path:
        """``study.yaml``; a directory that holds it is a study."""
        return self.path / "study.yaml"

    @property
    def journal(self) -> Path:
        """``journal.log``."""
        return self.path / "journal.log"

    @property
    def evaluations(self) -> Path:
        """``evaluations/``."""
        return self.path / "evaluations"

    @property
    def images(self) -> Path:
        """``images/``."""
        return self.path / "images"

    @property
    def trials_csv(self) -> Path:
        """``trials.csv``."""
        return self.path / "trials.csv"

    @property
    def trials_parquet(self) -> Path:
        """``trials.parquet``."""
        return self.path / "trials.parquet"

    @property
    def summary(self) -> Path:
        """``summary.json``."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """``report.html``."""
        return self.path / "report.html"

    @property
    def best(self) -> Path:
        """``best/``."""
        return self.path / "best"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The directory and its three folders, outermost first."""
        return (self.path, self.evaluations, self.images, self.best)

    @property
    def is_study(self) -> bool:
        """Whether a configuration was saved here."""
        return self.settings.is_file()

    def create(self) -> Self:
        """Create the folders and prove by writing that each can be written; harmless on a study that exists.

        Raises:
            StudyDirectoryError: the path is a file, holds something other than a study, or cannot be written. Folders made
                on the way are removed again.
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
        """Check that this is a study, for reading.

        Raises:
            StudyDirectoryError: there is no such directory, or it holds no ``study.yaml``.
        """
        if not self.path.is_dir():
            raise StudyDirectoryError("there is no such directory", where=self.path, remedy="check the path of the study")
        if not self.is_study:
            remedy = "name the directory that a run was given with --out"
            raise StudyDirectoryError("this is not a study, it holds no study.yaml", where=self.path, remedy=remedy)
        return self

    def inside(self, name: str) -> Path:
        """The path of a file that is named relative to the study, with ``/`` between folders.

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
    """Make the folder unless it is there, be it from another worker that starts at the same moment."""
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
        return False
    return True


def _probe(folder: Path) -> None:
    """Write, flush and remove a small file."""
    file = folder / f"{TEMPORARY}probe-{os.getpid()}"
    try:
        write_bytes(file, b"x" * 4096)
    finally:
        file.unlink(missing_ok=True)


def _unwritable(place: Path, error: OSError | ValueError) -> StudyDirectoryError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    remedy = "choose a directory that can be written, on a disk with free space"
    return StudyDirectoryError(f"the study cannot be written here ({reason.lower()})", where=place, remedy=remedy)
