"""A study in a database, whose processes, server and connections are disturbed until it has ended."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.postgres import Server
from tests.workers.proxy import Proxy
from tests.workers.runs import GRACE, Job, Process, until

# 143 by its own handler, the signal where that was gone already because the worker was about to exit, 0 where it had ended by itself.
ENDED = (143, -signal.SIGTERM, 0)


@dataclass
class Yard:
    """Processes that work on a study in a database, are disturbed, and are started again."""

    job: Job
    server: Server
    proxy: Proxy
    lot: random.Random
    faults: Counter[str]
    most: int
    outage: float
    workers: list[Process] = field(default_factory=list)
    begun: int = 0

    def work(self) -> None:
        """Until the run has ended by itself, and its workers with it."""
        self._run()
        self.begun = self.faults.total()
        until(lambda: self.main.searching, 300)
        deeds = {
            "kill -9": 6,
            "kill -9 of the run": 2,
            "SIGTERM": 3,
            "SIGSTOP longer than the grace": 2,
            "restart of the server": 2,
            "cut connections": 4,
            "a worker more": 1,
        }
        try:
            while self.main.code != 0:
                self._tend()
                time.sleep(self.lot.uniform(0.2, 1.5))
                if self.faults.total() < self.most and self.main.code is None:
                    kind = self.lot.choices(list(deeds), list(deeds.values()))[0]
                    if self.outage and self.faults.total() > self.begun + 3:
                        kind, outage, self.outage = f"the server away for {self.outage:.0f} s", self.outage, 0.0
                        self.server.stop()
                        time.sleep(outage)
                        self.server.start()
                        self.faults[kind] += 1
                    elif self._done(kind):
                        self.faults[kind] += 1
            for worker in self.workers:
                assert worker.popen.wait(120) is not None
        finally:
            for process in (self.main, *self.workers):
                process.kill()

    def _run(self) -> None:
        self.main = self.job.begin(self.job.words(), self.job.log("run"))

    def _tend(self) -> None:
        """Start what has ended too early again."""
        if self.main.code not in (None, 0):
            self._run()
        self.workers = [worker for worker in self.workers if worker.code is None]
        while len(self.workers) < 2 and self.main.code is None:
            self._hire()

    def _hire(self) -> None:
        self.workers.append(self.job.begin(self.job.join(), self.job.log("worker")))

    def _done(self, kind: str) -> bool:
        """Do it, where it can be done now."""
        busy = [worker for worker in self.workers if worker.code is None and worker.searching]
        if not busy or not self.main.searching:
            return False
        match kind:
            case "kill -9 of the run":
                self.main.kill()
            case "restart of the server":
                self.server.restart()
            case "cut connections":
                return self.proxy.cut() > 0
            case "a worker more":
                self._hire()
            case "kill -9":
                self.lot.choice(busy).kill()
            case "SIGTERM":
                worker = self.lot.choice(busy)
                worker.signal(signal.SIGTERM)
                code = worker.popen.wait(120)
                assert code in ENDED, (code, worker.told)
            case _:
                worker = self.lot.choice(busy)
                worker.signal(signal.SIGSTOP)
                time.sleep(GRACE + 2)
                worker.signal(signal.SIGCONT)
        return True
