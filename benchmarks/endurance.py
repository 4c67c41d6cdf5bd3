"""Whether memory and disk stay flat over a long run: ``python -m benchmarks.endurance [--trials 500] [--every 50]``.

The real loop, merge, storage, evaluation cache and pictures, with two demo sources and the fake base, whose pictures cost nothing. Of
the process, the resident memory; of the study, its size on disk and how it is made up.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import psutil
import torch

from optimizer import optimize
from optimizer.search.observer import Silent
from studies.records import TrialRecord


class Watch(Silent):
    """Prints one line in so many trials."""

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.began, self.ended = perf_counter(), 0
        self.resident: list[tuple[int, float]] = []

    def trial(self, record: TrialRecord) -> None:
        """Measure."""
        self.ended += 1
        if self.ended % self.every:
            return
        gc.collect()
        self.resident.append((self.ended, psutil.Process().memory_info().rss / 1e6))
        sizes = [size_of(self.folder / name) / 1e6 for name in ("images", "evaluations", "journal.log")]
        took = perf_counter() - self.began
        print(
            f"{self.ended:>7}{self.resident[-1][1]:>11.0f} MB" + "".join(f"{size:>12.2f} MB" for size in sizes) + f"{took:>9.0f} s",
            flush=True,
        )


def main() -> None:
    """Run, and print how the memory after the last measured trial compares with that after the first."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--sources", nargs="+", default=["demo:neon", "demo:octopus"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        resident = watched(asked.sources, asked.trials, asked.every, Path(folder) / "study")
    (first, before), (last, after) = resident[0], resident[-1]
    print(f"resident memory after trial {last}: {after / before:.3f} times that after trial {first}")


def watched(sources: Sequence[str], trials: int, every: int, folder: Path) -> list[tuple[int, float]]:
    """(trials, MB) at every measurement."""
    print(f"{'trials':>7}{'resident':>14}{'pictures':>15}{'evaluations':>15}{'journal':>15}{'time':>11}", flush=True)
    watch = Watch(folder, every)
    optimize(sources, base="fake:", budget=trials, out=folder, observer=watch)
    return watch.resident


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


if __name__ == "__main__":
    main()
