"""How much faster more workers are: ``python -m benchmarks.workers``.

Runs the search on small LoRAs and a fake base whose pictures take a given time, with 1, 2, 4, 8 worker processes, and prints trials a
second from when the last worker has come until the first has nothing left to do, the share of the ideal, workers divided by latency, and
how many of the machine's cores were busy meanwhile, all processes counted. On fewer cores than workers, what a trial costs beside its
latency is what is measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks.shapes import random_file, sd1_shapes
from optimizer.search.workers.storage import SharedStudy, open_database_study, open_local_study
from studies import StudyDirectory


def main() -> None:
    """Print one line a number of workers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--each", type=int, default=12, help="recipes a worker")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds")
    parser.add_argument("--sampler", default="auto", help="gp or tpe")
    parser.add_argument("--storage", default="", help="postgresql://…; the journal of a directory where not given")
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, {'PostgreSQL' if asked.storage else 'journal'}, sampler {asked.sampler}, trials of {asked.latency:g} s")
    print(f"{'workers':>7}{'trials/s':>10}{'of ideal':>10}{'cores busy':>12}")
    with tempfile.TemporaryDirectory() as folder:
        few = dict(sorted(sd1_shapes().items())[:4])
        sources = [str(random_file(Path(folder) / f"{name}.safetensors", few, rank=2, seed=i, base="sd1")) for i, name in enumerate("ab")]
        for workers in asked.workers:
            words = ["--sources", *sources, "--base", f"fake:size=4&latency={asked.latency:g}", "--sampler", asked.sampler]
            words += ["--budget", str(asked.each * workers), "--workers", str(workers), "--methods", "linear"]
            speed, busy = measure(Path(folder) / f"workers-{workers}-{os.getpid()}", words, workers, asked.storage)
            print(f"{workers:>7}{speed:>10.2f}{speed * asked.latency / workers:>10.0%}{busy:>12.1f}", flush=True)


def measure(out: Path, words: Sequence[str], workers: int, storage: str) -> tuple[float, float]:
    """Run a search; returns trials a second while all workers were at it, and busy cores over the whole run."""
    few = ["--own", "1", "--joint", "1", "--confirm", "1", "--finalists", "1", "--out", str(out)]
    place = ["--artifacts", str(out.with_name(f"{out.name}-artifacts"))] if storage else []
    environment = os.environ | ({"OPTIMIZE_STORAGE": storage} if storage else {})
    psutil.cpu_percent()
    subprocess.run([sys.executable, "-m", "optimizer", *words, *few, *place], check=True, capture_output=True, env=environment)
    busy = psutil.cpu_percent() / 100 * (os.cpu_count() or 1)
    shared = open_database_study(storage, out.name, create=False) if storage else open_local_study(StudyDirectory(out), create=False)
    return rate(shared, workers), busy


def rate(shared: SharedStudy, workers: int) -> float:
    """Trials a second from when each worker has ended its first, for which it renders what all are compared with, to its last trials."""
    ended = [(t.datetime_complete, t.user_attrs["worker"]) for t in shared.study.get_trials(deepcopy=False) if t.datetime_complete]
    shared.close()
    firsts: dict[str, datetime] = {}
    for end, worker in sorted(ended):
        firsts.setdefault(worker, end)
    begin, ends = max(firsts.values()), sorted(end for end, _ in ended)
    steady = [end for end in ends if end >= begin][: 1 - workers or None]
    return (len(steady) - 1) / (steady[-1] - steady[0]).total_seconds()


if __name__ == "__main__":
    main()
