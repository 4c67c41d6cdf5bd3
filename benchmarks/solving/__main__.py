"""What merges that are solved on the base model are worth: ``python -m benchmarks.solving``.

Every method merges groups of demo sources, and the probes read how much is seen of each source, on prompts that nothing was solved or
chosen on. Rows are kept in a folder; the command continues where it was interrupted, and prints the tables of everything that is there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.solving import sheets, speed
from benchmarks.solving.ablation import VARIANTS, run_ablation
from benchmarks.solving.contestants import ALONE, METHODS_OF_ALL, Bench
from benchmarks.solving.groups import SETS, named
from benchmarks.solving.readings import readings_of
from benchmarks.solving.rows import Rows
from benchmarks.solving.table import tables
from benchmarks.truth import Judge, load_judge

_LAST = ("zip",)
"""Methods that run when all others have run on every group."""


def main(given: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solving", description=__doc__)
    parser.add_argument("--groups", nargs="+", default=["report"], help=f"{', '.join(SETS)}, or names like neon+hat")
    parser.add_argument("--methods", nargs="+", choices=METHODS_OF_ALL, default=METHODS_OF_ALL)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--each", type=int, default=10, help="unseen prompts of each kind: each source's own, and joint ones")
    parser.add_argument("--out", type=Path, default=Path("build/solving"))
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    parser.add_argument("--sheets", type=Path, metavar="DIR", help="draw contact sheets of what is there, and run nothing")
    parser.add_argument("--blind", type=Path, metavar="DIR", help="draw shuffled sheets and their key, and run nothing")
    parser.add_argument(
        "--ablation", nargs="*", choices=[[], *VARIANTS], metavar="VARIANT", help="variants of distill; all if none is named"
    )
    parser.add_argument("--family", choices=("sdxl", "flux1"), help="time and memory of distillation on a pipeline with random weights")
    parser.add_argument("--small", action="store_true", help="with --family: tiny models")
    asked = parser.parse_args(given)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    if asked.family:
        speed.measure(asked.family, small=asked.small)
        return
    rows, judge = Rows(asked.out), load_judge()
    if asked.sheets or asked.blind:
        sheets.draw(rows, judge, named(asked.groups), contact=asked.sheets, blind=asked.blind)
        return
    if not asked.table:
        run(asked, rows, judge)
    for line in tables(readings_of(rows, judge)):
        print(line)


def run(asked: argparse.Namespace, rows: Rows, judge: Judge) -> None:
    """Records all rows that are asked for and missing: seed after seed, group after group, the slowest methods last."""
    groups = named(asked.groups)
    for seed in asked.seeds:
        for late in (False, True):
            for group in groups:
                bench = Bench(group, judge, rows, asked.each)
                if asked.ablation is not None:
                    if not late:
                        run_ablation(bench, seed, asked.ablation or list(VARIANTS))
                    continue
                methods = [method for method in asked.methods if (method in _LAST) == late]
                for method in [*(() if late else (ALONE + name for name in group)), *methods]:
                    if row := bench.run(method, seed):
                        print(f"{'+'.join(group)} seed {seed}: {method} {row.seconds:.0f} s, {row.memory / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
