"""Atomic writes: a file is written completely or not at all, even after a power failure.

The data are written to a temporary file in the target folder, flushed to the disk, and renamed to the final name in one step; then the
folder itself is flushed. A process that is killed in between leaves at most a hidden ``.tmp-*`` file behind.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp-"
"""Prefix of the names of unfinished files."""

_NOT_SUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields an empty temporary file beside ``path`` that replaces it when the block ends without an error.

    The temporary name keeps the suffix, so that libraries which choose a format by it (pictures, tables) work unchanged.

    Args:
        path: path of the final file; its folder must exist. An existing file is replaced.

    Yields:
        Path of the temporary file, which the caller writes.

    Raises:
        OSError: the folder cannot be written or is full; ``path`` is then unchanged.
    """
    final = Path(path)
    with _temporary(final) as temporary:
        yield temporary
        _flush(temporary)
        os.replace(temporary, final)
    flush_folder(final.parent)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes ``data`` to ``path`` atomically; raises OSError, and leaves an existing file unchanged, if that is not possible."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def create_bytes(path: str | Path, data: bytes) -> bool:
    """Writes ``data`` to ``path`` atomically, unless the file exists; of several concurrent callers only one succeeds.

    Returns:
        Whether the file was written. On file systems without hard links, two concurrent callers may both return True.

    Raises:
        OSError: the folder cannot be written or is full.
    """
    final = Path(path)
    with _temporary(final) as temporary:
        temporary.write_bytes(data)
        _flush(temporary)
        try:
            os.link(temporary, final)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if final.exists():
                return False
            os.replace(temporary, final)
    flush_folder(final.parent)
    return True


def write_text(path: str | Path, text: str) -> None:
    """Writes ``text`` to ``path`` atomically, as UTF-8 with unchanged line ends."""
    write_bytes(path, text.encode("utf-8"))


def flush_folder(folder: Path) -> None:
    """Makes a new or renamed entry of the folder durable, if the system supports it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(handle)


@contextmanager
def _temporary(final: Path) -> Iterator[Path]:
    """Yields a new, empty file beside another, which is removed when the block ends, unless it was renamed."""
    temporary = final.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{final.suffix}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
