"""Runs of the real command line in processes of their own, to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.files import LINEAR, kohya_file, random_parts
from tests.workers.disks import SLOW

Sources = tuple[str, str]
BASELINES = 4
GRACE, BEAT = 4.0, 0.5


def make_sources(folder: Path) -> Sources:
    """Two small LoRA files."""
    made = [kohya_file(folder / f"{n}.safetensors", random_parts(LINEAR, rank=2 + i, seed=i)).path for i, n in enumerate("ab")]
    return str(made[0]), str(made[1])


@dataclass(frozen=True)
class Job:
    """A study to be.

    Attributes:
        sources: files.
        out: the study directory.
        budget: recipes beyond the baselines.
        seed: seed of the proposals.
        latency: seconds that a trial takes.
        storage: the database, if any.
        artifacts: goes with it.
        name: the study's in the database.
        slow: whether the disk is.
        logs: where what the processes print goes, if not beside the study.
    """

    sources: Sources
    out: Path
    budget: int
    seed: int = 0
    latency: float = 0.0
    storage: str = ""
    artifacts: str = ""
    name: str = "s"
    slow: bool = False
    logs: Path | None = None

    def words(self, *more: str) -> list[str]:
        """Arguments of the main job."""
        base = ["--base", f"fake:size=4&fail=0.1&latency={self.latency}", "--own", "1", "--joint", "1", "--confirm", "1"]
        shared = ["--artifacts", self.artifacts, "--study", self.name] if self.storage else []
        where = ["--out", str(self.out), "--budget", str(self.budget), "--seed", str(self.seed), "--finalists", "1"]
        return ["--sources", *self.sources, *base, *where, *shared, *more]

    def join(self) -> list[str]:
        """Arguments of a worker."""
        return ["worker", "--study", self.name, "--artifacts", self.artifacts] if self.storage else ["worker", str(self.out)]

    def begin(self, words: Sequence[str], log: Path) -> Process:
        """Start a process of this study."""
        own = {"OPTIMIZE_STORAGE": self.storage} if self.storage else {}
        if self.slow:
            own["PYTHONPATH"] = os.pathsep.join([str(SLOW), *filter(None, [os.environ.get("PYTHONPATH")])])
        return Process.begin(words, log, own | {"XDG_CACHE_HOME": str(self.out.parent / "cache")})

    def log(self, kind: str) -> Path:
        """A file for what the next process of a kind prints."""
        folder = self.logs or self.out.parent / "logs"
        return folder / f"{len(list(folder.glob('*'))) + 1:03d}-{kind}.log"


@dataclass
class Process:
    """A command that runs.

    Attributes:
        popen: its process.
        log: what it prints.
    """

    popen: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def begin(cls, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
        """Start ``optimize`` with these words."""
        own = {"MULTILORA_GRACE": str(GRACE), "MULTILORA_BEAT": str(BEAT), "OMP_NUM_THREADS": "1", **environment}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            command = [sys.executable, "-m", "optimizer", *words]
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | own, start_new_session=True
            )
        return cls(popen, log)

    @property
    def code(self) -> int | None:
        """The exit code, if it has ended."""
        return self.popen.poll()

    @property
    def told(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    @property
    def searching(self) -> bool:
        """Whether it has come to its trials."""
        return "search: " in self.told

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.code is None:
            self.popen.send_signal(number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.popen.wait()


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
