"""Stores: a folder or a bucket for a study's evaluations, pictures and sources, which several machines can share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from studies.atomic import TEMPORARY, create_bytes, flush_folder, write_bytes

T = TypeVar("T")


class StoreError(OSError):
    """A store does not answer, or refuses a request.

    Args:
        problem: the failure and its cause, in one line and without credentials.
        where: location of the store.
    """

    def __init__(self, problem: str, *, where: str) -> None:
        self.problem, self.where = problem, where
        super().__init__(f"{where}: {problem}")


class Store(Protocol):
    """Named byte strings. ``str`` of a store is its location. Names are relative, with ``/`` between folders: ``evaluations/0a….json``.

    Data are durable when ``write`` returns, and readers never see partial data. All methods raise OSError if the store does not
    answer or refuses a request.
    """

    def read(self, name: str) -> bytes | None:
        """Returns the data with this name, or None."""

    def write(self, name: str, data: bytes) -> None:
        """Stores data, replacing existing data with this name."""

    def create(self, name: str, data: bytes) -> bool:
        """Stores data unless the name exists, and returns whether they were stored; of several concurrent callers only one succeeds."""

    def names(self, folder: str) -> Iterator[str]:
        """Returns all names in a folder and its subfolders, sorted."""

    def remove(self, name: str) -> None:
        """Removes the data with this name, if it exists."""


@dataclass(frozen=True)
class FolderStore:
    """Store in a folder of this machine or of a file server: names are paths in it.

    Attributes:
        path: path of the folder; it and its subfolders are created on the first write.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file, or None if it does not exist."""
        try:
            return self._file(name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Writes a file atomically, replacing an existing one."""
        self._in_folder(self._file(name), lambda file: write_bytes(file, data))

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file atomically unless it exists, and returns whether it was written."""
        return self._in_folder(self._file(name), lambda file: create_bytes(file, data))

    def names(self, folder: str) -> Iterator[str]:
        """Returns all names in a folder and its subfolders, sorted, without unfinished files."""
        files = (p for p in self._file(folder).rglob("*") if p.is_file() and not p.name.startswith(TEMPORARY))
        return iter(sorted(p.relative_to(self.path).as_posix() for p in files))

    def remove(self, name: str) -> None:
        """Removes a file, if it exists, and its folder, if that is then empty."""
        file = self._file(name)
        if file.exists():
            file.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                flush_folder(file.parent)
            if file.parent != self.path:
                with suppress(OSError):
                    file.parent.rmdir()

    def _in_folder(self, file: Path, do: Callable[[Path], T]) -> T:
        """Calls a function on a file after creating its folder, and returns the result."""
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            return do(file)
        except FileNotFoundError:  # another process has just removed the folder's last file
            file.parent.mkdir(parents=True, exist_ok=True)
            return do(file)

    def _file(self, name: str) -> Path:
        return self.path.joinpath(*parts_of(name))


def parts_of(name: str) -> tuple[str, ...]:
    """Returns the folders and the file name in a store name, outermost first.

    Raises:
        ValueError: the name is empty, absolute, leads out of the store, or contains a backslash or NUL.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name in a store")
    return parts
