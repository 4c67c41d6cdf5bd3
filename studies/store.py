"""Stores: where evaluations, pictures and sources of a study lie, so that many machines can share them; a folder, or a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from studies.atomic import TEMPORARY, create_bytes, flush_folder, write_bytes

T = TypeVar("T")


class StoreError(OSError):
    """A store does not answer, or refuses.

    Args:
        problem: what failed and why, in one line and without credentials.
        where: the store.
    """

    def __init__(self, problem: str, *, where: str) -> None:
        self.problem, self.where = problem, where
        super().__init__(f"{where}: {problem}")


class Store(Protocol):
    """Named bytes. ``str`` of a store says where it lies. Names are relative, with ``/`` between folders: ``evaluations/0a….json``.

    What ``write`` has returned for is durable, and no reader ever sees half of it. All methods raise OSError where the store does not
    answer or refuses.
    """

    def read(self, name: str) -> bytes | None:
        """The bytes of this name, or None."""

    def write(self, name: str, data: bytes) -> None:
        """Store bytes; those of the same name before are replaced."""

    def create(self, name: str, data: bytes) -> bool:
        """Store bytes unless there are some of this name; returns whether they were stored. Of several that do so at once one is first."""

    def names(self, folder: str) -> Iterator[str]:
        """All names in a folder and the folders in it, sorted."""

    def remove(self, name: str) -> None:
        """Remove what has this name, if there is any."""


@dataclass(frozen=True)
class FolderStore:
    """A folder of this machine or of a file server: names are paths in it.

    Attributes:
        path: the folder; it and folders in it are made when something is written.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes | None:
        """See ``Store``."""
        try:
            return self._file(name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """See ``Store``."""
        self._in_folder(self._file(name), lambda file: write_bytes(file, data))

    def create(self, name: str, data: bytes) -> bool:
        """See ``Store``."""
        return self._in_folder(self._file(name), lambda file: create_bytes(file, data))

    def names(self, folder: str) -> Iterator[str]:
        """See ``Store``."""
        files = (p for p in self._file(folder).rglob("*") if p.is_file() and not p.name.startswith(TEMPORARY))
        return iter(sorted(p.relative_to(self.path).as_posix() for p in files))

    def remove(self, name: str) -> None:
        """See ``Store``; a folder that is empty then goes, too."""
        file = self._file(name)
        if file.exists():
            file.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                flush_folder(file.parent)
            if file.parent != self.path:
                with suppress(OSError):
                    file.parent.rmdir()

    def _in_folder(self, file: Path, do: Callable[[Path], T]) -> T:
        """Do something with a file in a folder that is there."""
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            return do(file)
        except FileNotFoundError:  # another process has just removed the folder's last file
            file.parent.mkdir(parents=True, exist_ok=True)
            return do(file)

    def _file(self, name: str) -> Path:
        return self.path.joinpath(*parts_of(name))


def parts_of(name: str) -> tuple[str, ...]:
    """The folders of a name and what it ends in, outermost first.

    Raises:
        ValueError: the name is empty, absolute, leads out of the store, or holds a backslash or NUL.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name in a store")
    return parts
