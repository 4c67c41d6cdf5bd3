"""The journal: neither a torn line, a full disk nor a killed process spoils it."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from optimizer.search.workers.journal import Journal, complete_length

FULL = """
import resource, sys
from pathlib import Path
from optimizer.search.workers.journal import Journal
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, resource.RLIM_INFINITY))
try:
    Journal(path).append_logs([{"n": 1, "text": "x" * 100}])
except OSError as error:
    print(error.errno)
"""
APPENDS = """
import sys
from pathlib import Path
from optimizer.search.workers.journal import Journal
journal = Journal(Path(sys.argv[1]))
for n in range(50):
    journal.append_logs([{"by": sys.argv[2], "n": n}])
"""
HOLDS = """
import sys, time
from pathlib import Path
from optimizer.search.workers.journal import Journal
Journal(Path(sys.argv[1]))._system_lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def read(path: Path) -> list[dict[str, Any]]:
    return list(Journal(path).read_logs(0))


@pytest.mark.parametrize("torn", [b'{"n":', b"x" * 10_000, b"\0" * 5000])
def test_a_torn_last_line_is_not_read_and_goes_with_the_next_one(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log"
    Journal(path).append_logs([{"n": 0}])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert complete_length(path) == len(whole)
    assert read(path) == [{"n": 0}]
    Journal(path).append_logs([{"n": 1}])
    assert read(path) == [{"n": 0}, {"n": 1}]
    assert path.read_bytes() == whole + b'{"n":1}\n'


def test_a_log_that_is_nothing_but_torn_is_empty(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"n":0')
    Journal(tmp_path / "log").append_logs([{"n": 1}])
    assert read(tmp_path / "log") == [{"n": 1}]


def test_a_reader_that_saw_the_torn_line_reads_what_took_its_place(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = Journal(path)
    reader.append_logs([{"n": 0}])
    path.write_bytes(path.read_bytes() + b'{"n":')
    assert list(reader.read_logs(0)) == [{"n": 0}]
    Journal(path).append_logs([{"n": 1}])
    assert list(reader.read_logs(1)) == [{"n": 1}]


def test_when_the_file_cannot_grow_the_log_is_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    Journal(path).append_logs([{"n": 0}])
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) in (errno.EFBIG, errno.ENOSPC)
    assert path.read_bytes() == before
    Journal(path).append_logs([{"n": 1}])
    assert read(path) == [{"n": 0}, {"n": 1}]


def test_a_study_goes_on_after_the_disk_was_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.JournalStorage(Journal(tmp_path / "log"))
    study = optuna.create_study(storage=storage, study_name="s")
    trial = study.ask()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("optimizer.search.workers.journal.os.fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            study.tell(trial, 0.5)
    study.tell(trial, 0.25)
    again = optuna.load_study(storage=optuna.storages.JournalStorage(Journal(tmp_path / "log")), study_name="s")
    assert [t.value for t in again.trials] == [0.25]


def test_many_processes_append_and_no_line_is_lost_or_mixed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    processes = [subprocess.Popen([sys.executable, "-c", APPENDS, str(path), str(i)]) for i in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 150
    assert all([line["n"] for line in lines if line["by"] == str(i)] == list(range(50)) for i in range(3))


def test_the_lock_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.communicate()
    Journal(path).append_logs([{"n": 0}])
    assert read(path) == [{"n": 0}]


def test_a_lock_that_optuna_itself_left_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    (tmp_path / "log.lock").symlink_to(path)
    Journal(path).append_logs([{"n": 0}])
    assert read(path) == [{"n": 0}]
