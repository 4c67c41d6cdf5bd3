"""Whether the score sees what the probes see: ``python -m benchmarks.agreement``.

For groups of demo sources, candidates of every kind draw the same prompts: weights from 0.3 to 2, uneven ones, single blocks, methods,
random recipes of the search space, compositions, merges that are solved on the base. In the same pictures the product measures the share of
each source that is kept, and the probes read how much of it is seen. Printed are rank correlations, mean differences and false claims. Rows
are kept in a folder; the command continues where it was interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.agreement import labels
from benchmarks.agreement.candidates import Named, baselines, candidates, solved
from benchmarks.agreement.frame import frame_of
from benchmarks.agreement.groups import SETS, named
from benchmarks.agreement.table import tables
from benchmarks.solving.contestants import Bench
from benchmarks.solving.rows import Row, Rows
from benchmarks.truth import load_judge
from objectives import load_embedder
from studies.demo.world import demo_embedder


def main(given: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("--groups", nargs="+", default=["report"], help=f"{', '.join(SETS)}, or names like neon+hat")
    parser.add_argument("--each", type=int, default=8, help="prompts of each kind: each source's own, and joint ones")
    parser.add_argument("--unsolved", action="store_true", help="without merges that are solved on the base, which take minutes a group")
    parser.add_argument("--out", type=Path, default=Path("build/agreement"))
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    parser.add_argument("--labels", action="store_true", help="compare shares with labels by eye, and nothing else")
    parser.add_argument("--worst", type=int, default=10, help="print so many of the largest differences")
    asked = parser.parse_args(given)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    rows, judge, embedder = Rows(asked.out), load_judge(), load_embedder(demo_embedder())
    if asked.labels:
        print(*labels.lines(judge, embedder), sep="\n")
        return
    for group in [] if asked.table else named(asked.groups):
        bench = Bench(group, judge, rows, asked.each)
        for one in _all(bench, not asked.unsolved):
            if not rows.has(group, one.name, 0):
                rows.record(Row(group, one.name, 0, asked.each), bench.draw(one.candidate, 0))
        print(f"{'+'.join(group)} is drawn", flush=True)
    for line in tables(frame_of(rows, judge, embedder), asked.worst):
        print(line)


def _all(bench: Bench, with_solved: bool) -> Iterator[Named]:
    yield from baselines(bench)
    yield from candidates(bench)
    if with_solved and not bench.rows.has(bench.group, "distill 100 %", 0):
        yield from solved(bench)


if __name__ == "__main__":
    main()
