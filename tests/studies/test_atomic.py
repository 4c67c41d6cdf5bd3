"""Atomic writes: whole or not at all, whatever happens in between."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studies.atomic import create_bytes, replacing, write_bytes, write_text

WRITER = """
import sys
from studies.atomic import write_bytes
for turn in range(10**9):
    write_bytes(sys.argv[1], (b"a", b"b")[turn % 2] * 2_000_000)
"""


def test_writes_and_replaces(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "größer\n")
    write_bytes(tmp_path / "a.txt", b"new")
    assert (tmp_path / "a.txt").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_was_created_is_not_replaced(tmp_path: Path) -> None:
    assert create_bytes(tmp_path / "a.txt", b"first")
    assert not create_bytes(tmp_path / "a.txt", b"second")
    assert (tmp_path / "a.txt").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_creating_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    test_what_was_created_is_not_replaced(tmp_path)


def test_text_keeps_its_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "one\r\ntwo\né")
    assert (tmp_path / "a.txt").read_bytes() == "one\r\ntwo\né".encode()


def test_file_has_the_permissions_of_an_ordinary_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "atomic", b"")
    (tmp_path / "ordinary").write_bytes(b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("atomic", "ordinary")}
    assert len(modes) == 1


def test_an_error_while_writing_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"old")

    def fail_in_the_middle() -> None:
        with replacing(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail_in_the_middle()
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_temporary_file_lies_beside_the_final_one_and_keeps_its_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "picture.webp") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".webp"
        assert not (tmp_path / "picture.webp").exists()
    assert (tmp_path / "picture.webp").exists()


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "absent" / "a", b"")


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be flushed there")
def test_file_is_flushed_before_and_folder_after_the_renaming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def watched_replace(a: Path, b: Path) -> None:
        order.append("rename")
        replace(a, b)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_bytes(tmp_path / "a", b"x")
    assert order == ["file", "rename", "folder"]


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("delay", [0.0, 0.013, 0.031])
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path, delay: float) -> None:
    target = tmp_path / "data.bin"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(target)])
    while not target.exists():
        assert writer.poll() is None
        time.sleep(0.005)
    time.sleep(delay)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert target.read_bytes() in (b"a" * 2_000_000, b"b" * 2_000_000)
