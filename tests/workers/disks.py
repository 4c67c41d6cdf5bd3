"""Disks that go wrong: a small one that fills up, and files that are damaged while no process runs."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SIZE = 48_000_000
SLOW = Path(__file__).parent / "slow"


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of ``SIZE`` bytes in memory at this folder; yields False, with an ordinary folder, where that is not allowed."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """No byte is left on the disk while the block runs."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        ballast.unlink()


@dataclass(frozen=True)
class Damage:
    """A way to damage a study.

    Attributes:
        kind: its name.
        do: damages the study in a folder; returns whether there was anything to damage.
        repair: whether ``optimize repair`` has to follow.
    """

    kind: str
    do: Callable[[Path, random.Random], bool]
    repair: bool = True


def _cut(file: Path, lot: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: lot.randrange(len(data))])


def _one_of(names: str, kind: Callable[[Path, random.Random], None]) -> Callable[[Path, random.Random], bool]:
    def do(out: Path, lot: random.Random) -> bool:
        files = sorted(out.glob(names))
        if files:
            kind(lot.choice(files), lot)
        return bool(files)

    return do


def _gone(file: Path, lot: random.Random) -> None:
    file.unlink()


def _torn(file: Path, lot: random.Random) -> None:
    last = file.read_bytes().splitlines()[-1]
    with file.open("ab") as journal:
        journal.write(last[: lot.randrange(1, len(last))])


def _garbled(file: Path, lot: random.Random) -> None:
    data = bytearray(file.read_bytes())
    start = lot.randrange(len(data) // 2)
    data[start : start + 64] = b"\xff\x00" * 32
    file.write_bytes(data)


DAMAGES = (
    Damage("an evaluation cut short", _one_of("evaluations/*.json", _cut)),
    Damage("an evaluation deleted", _one_of("evaluations/*.json", _gone)),
    Damage("an entry of the trial log cut short", _one_of("evaluations/trials/0*.json", _cut)),
    Damage("a picture deleted", _one_of("images/*/*.png", _gone)),
    Damage("a picture cut short", _one_of("images/*/*.png", _cut)),
    Damage("the journal's last line torn", _one_of("journal.log", _torn), repair=False),
    Damage("the journal garbled", _one_of("journal.log", _garbled)),
    Damage("the journal deleted", _one_of("journal.log", _gone)),
)
