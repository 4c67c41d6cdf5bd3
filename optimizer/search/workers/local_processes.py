"""Additional worker processes on this machine, one per GPU, which the run starts, monitors and restarts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import IO, Self

import torch

from optimizer.search.config import Config
from optimizer.search.observer import Observer
from optimizer.search.workers.parent_watch import STARTED_BY_RUN

_RESTARTS, _EXIT_TIMEOUT, _POLL = 3, 20.0, 0.5


@dataclass
class LocalWorkers:
    """Context manager that runs worker processes beside this process.

    Attributes:
        config: configuration of the run; ``workers`` includes this process.
        directory: study directory; the output of a worker goes to ``workers/NUMBER.log`` there.
        observer: receives a note about a worker that ended too early.
    """

    config: Config
    directory: Path
    observer: Observer
    _processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _logs: list[IO[bytes]] = field(default_factory=list)
    _stopping: Event = field(default_factory=Event)
    _monitor: Thread | None = None

    def __enter__(self) -> Self:
        if self.config.places.workers > 1:
            torch.set_num_threads(threads_each(self.config.places.workers))
            for number in range(1, self.config.places.workers):
                self._start(number)
            self._monitor = Thread(target=self._restart_ended, daemon=True)
            self._monitor.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Asks the workers to stop, and waits until they have ended."""
        self._stopping.set()
        if self._monitor:
            self._monitor.join()
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(_EXIT_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for log in self._logs:
            log.close()

    def _start(self, number: int) -> None:
        path = self.directory / "workers" / f"{number}.log"
        path.parent.mkdir(exist_ok=True)
        log = path.open("ab")
        self._logs.append(log)
        self._processes[number] = subprocess.Popen(
            self._command(), stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment(number), start_new_session=True
        )

    def _restart_ended(self) -> None:
        """Restarts workers that ended too early, a limited number of times."""
        left = dict.fromkeys(self._processes, _RESTARTS)
        while not self._stopping.wait(_POLL):
            for number, process in list(self._processes.items()):
                if process.poll() in (None, 0):
                    continue
                if left[number]:
                    left[number] -= 1
                    self.observer.note(f"worker {number} {_ending(process.returncode)}; it is started again")
                    self._start(number)
                else:
                    self.observer.note(f"worker {number} {_ending(process.returncode)} again; the others go on, see workers/{number}.log")
                    del self._processes[number]

    def _command(self) -> Sequence[str]:
        place = ["--study", self.config.places.study_name] if self.config.places.storage else [str(self.directory)]
        device = [] if self.config.loading.device == "auto" else ["--device", self.config.loading.device]
        metric = ["--metric", *self.config.protocol.metric] if self.config.protocol.metric else []
        return [sys.executable, "-m", "optimizer", "worker", *place, *device, *metric]

    def _environment(self, number: int) -> dict[str, str]:
        """Returns a worker's environment, with the database URL, which may contain a password and must not be a visible argument."""
        own = {STARTED_BY_RUN: "1", "OMP_NUM_THREADS": str(threads_each(self.config.places.workers))}
        if self.config.places.storage:
            own |= {"OPTIMIZE_STORAGE": self.config.places.storage, "OPTIMIZE_ARTIFACTS": self.config.places.artifacts}
        if devices := visible_devices():
            own["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
        return os.environ | own


def visible_devices() -> list[str]:
    """Returns the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def threads_each(workers: int) -> int:
    """Returns the number of CPU threads for each of ``workers`` processes."""
    return max(1, (os.cpu_count() or 1) // workers)


def _ending(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
