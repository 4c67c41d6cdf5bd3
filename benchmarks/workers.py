"""How much faster more workers are: ``python -m benchmarks.workers``.

Runs the search on a fake base whose pictures take a given time, with 1, 2, 4, 8 worker processes, and prints trials a second from the
first trial's start to the last one's end, and the share of the ideal, workers divided by latency. Loading is not part of it. On fewer
cores than workers, what a trial costs beside its latency is what is measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from optimizer.search.workers.opening import Shared, in_database, on_this_machine
from studies import StudyDirectory


def main() -> None:
    """Print one line a number of workers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--each", type=int, default=8, help="recipes a worker")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds")
    parser.add_argument("--sampler", default="auto", help="gp or tpe")
    parser.add_argument("--storage", default="", help="postgresql://…; the journal of a directory where not given")
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, {'PostgreSQL' if asked.storage else 'journal'}, trials of {asked.latency:g} s")
    print(f"{'workers':>7}{'trials/s':>10}{'of ideal':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for workers in asked.workers:
            rate = measure(
                Path(folder) / f"workers-{workers}-{os.getpid()}",
                workers,
                asked.each * workers,
                asked.latency,
                asked.storage,
                asked.sampler,
            )
            print(f"{workers:>7}{rate:>10.2f}{rate * asked.latency / workers:>10.0%}", flush=True)


def measure(out: Path, workers: int, budget: int, latency: float, storage: str, sampler: str) -> float:
    """Run a search; returns trials a second while all workers were there."""
    words = ["--sources", "demo:neon", "demo:octopus", "--base", f"fake:latency={latency:g}", "--budget", str(budget), "--out", str(out)]
    words += [
        "--own",
        "1",
        "--joint",
        "1",
        "--confirm",
        "1",
        "--finalists",
        "1",
        "--methods",
        "linear",
        "--workers",
        str(workers),
        "--sampler",
        sampler,
    ]
    words += ["--artifacts", str(out.with_name(f"{out.name}-artifacts"))] if storage else []
    environment = os.environ | ({"OPTIMIZE_STORAGE": storage} if storage else {})
    subprocess.run([sys.executable, "-m", "optimizer", *words], check=True, capture_output=True, env=environment)
    directory = StudyDirectory(out)
    return rate(in_database(storage, out.name, create=False) if storage else on_this_machine(directory, create=False), workers)


def rate(shared: Shared, workers: int) -> float:
    """Trials a second from when the last worker had come until the last but ``workers`` trials had ended."""
    trials = shared.study.get_trials(deepcopy=False)
    first = {}
    for trial in trials:
        first.setdefault(trial.user_attrs.get("worker"), trial.datetime_start)
    ends = sorted(t.datetime_complete for t in trials if t.datetime_complete)
    begin = max(start for start in first.values() if start)
    steady = [end for end in ends if end > begin][: -workers + 1 or None]
    return (len(steady) - 1) / (steady[-1] - steady[0]).total_seconds()


if __name__ == "__main__":
    main()
