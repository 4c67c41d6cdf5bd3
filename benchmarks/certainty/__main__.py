"""How often verdicts and intervals are right: ``python -m benchmarks.certainty``.

For groups of demo sources, a few recipes draw many prompts of each kind: the pool, whose values are the true ones. Small studies take their
few prompts from it, again and again, and the product's own code says which merge wins and how sure that is. Printed are: how often a
candidate wins that is no better than a baseline, and one that is better by 0.1 in score; how often intervals cover the true value; and how
much higher the winner scores in the search than on new prompts. Rows of the pool are kept in a folder; the command continues where it was
interrupted. ``--equal --table --out build/agreement`` compares equal candidates in what ``benchmarks.agreement`` has drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.agreement.groups import SETS, named
from benchmarks.certainty.pool import drawn, pools
from benchmarks.certainty.studies import CONFIRM
from benchmarks.certainty.table import lines
from benchmarks.solving.rows import Rows
from benchmarks.truth import load_judge
from objectives import load_embedder
from studies.demo.world import demo_embedder

GROUPS = ["robot+hat", "pencil+octopus"]
"""Groups on which nothing was chosen, two of ``report``."""


def main(given: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.certainty", description=__doc__)
    parser.add_argument("--groups", nargs="+", default=GROUPS, help=f"{', '.join(SETS)}, or names like neon+hat")
    parser.add_argument("--each", type=int, default=72, help="prompts of each kind in the pool")
    parser.add_argument("--studies", type=int, default=200, help="repetitions")
    parser.add_argument("--confirm", type=int, default=CONFIRM, help="prompts of each kind in a study")
    parser.add_argument("--out", type=Path, default=Path("build/certainty"))
    parser.add_argument("--table", action="store_true", help="print what is there, and draw nothing")
    parser.add_argument("--equal", action="store_true", help="compare equal candidates, and nothing else")
    parser.add_argument("--threads", type=int, help="of the CPU")
    asked = parser.parse_args(given)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    rows, judge, embedder = Rows(asked.out), load_judge(), load_embedder(demo_embedder())
    groups = named(asked.groups)
    for group in [] if asked.table else groups:
        for name in drawn(group, judge, rows, asked.each):
            print(f"{'+'.join(group)}: {name} is drawn", flush=True)
    for pool in pools(rows, judge, embedder, groups):
        for line in lines(pool, asked.studies, asked.confirm, asked.equal):
            print(line, flush=True)


if __name__ == "__main__":
    main()
