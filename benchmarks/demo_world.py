"""Sources of the demo world alone, and how they fight: ``python -m benchmarks.demo_world``.

Prints, on prompts outside every training set, the probe of each source's trait on the base and with the source alone at
strength 1, then the probe truth of stack and equal-weight merge for every pair and for the first triples.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import torch

from benchmarks.truth import Judge, demo_sources_of, load_judge, unseen_prompts
from optimizer.merging import Recipe, merge
from studies.demo.sheet import contact_sheet
from studies.demo.world import demo_sources

_TRIPLES = 8


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_world", description=__doc__)
    parser.add_argument("--each", type=int, default=12, help="prompts of each kind")
    parser.add_argument("--sheet", type=Path, default=Path("docs/sources.png"), help="pictures of every source alone")
    parser.add_argument("--alone-only", action="store_true", help="leave the merges out")
    arguments = parser.parse_args()
    judge = load_judge()
    alone(judge, arguments.each * 2, arguments.sheet)
    if not arguments.alone_only:
        fights(judge, arguments.each)


def alone(judge: Judge, each: int, sheet: Path) -> None:
    """Print each trait on base and source, and draw the sheet."""
    print(f"{'source':<10} {'on the base':>12} {'alone':>8}")
    rows = {}
    for name in demo_sources():
        sources = demo_sources_of([name], judge)
        prompts = unseen_prompts(sources, each=each)
        base, own = (judge.truth(sources, adapter, prompts).weakest for adapter in (None, sources[0].adapter))
        print(f"{name:<10} {base:>12.2f} {own:>8.2f}", flush=True)
        rows[name] = judge.pictures(sources[0].adapter, prompts.prompts[:10])
    print(contact_sheet(rows, sheet))


def fights(judge: Judge, each: int) -> None:
    """Print stack and naive merge of every pair and some triples, and how many of them lose a source."""
    names = list(demo_sources())
    triples = list(combinations(names, 3))
    chosen = [triples[i] for i in torch.linspace(0, len(triples) - 1, _TRIPLES).round().long().tolist()]
    for title, groups in (("pairs", list(combinations(names, 2))), ("triples", chosen)):
        print(f"\n{'sources':<28} {'stack':>6} {'naive':>6}   probe truth (weakest source)")
        lost = [_fight(judge, group, each) for group in groups]
        for which, column in (("stack", 0), ("naive", 1), ("either", 2)):
            share = sum(entry[column] for entry in lost) / len(lost)
            print(f"{title} that lose a source (< 0.70) in the {which}: {share:.0%}", flush=True)


def _fight(judge: Judge, group: tuple[str, ...], each: int) -> tuple[bool, bool, bool]:
    sources = demo_sources_of(group, judge)
    prompts = unseen_prompts(sources, each=each)
    adapters = [s.adapter for s in sources]
    weakest = []
    for weight in (1.0, 1 / len(sources)):
        merged = merge(adapters, Recipe(method="linear", weights=(weight,) * len(sources)))
        weakest.append(judge.truth(sources, merged, prompts).weakest)
    stack, naive = weakest
    print(f"{' + '.join(group):<28} {stack:>6.2f} {naive:>6.2f}", flush=True)
    return stack < 0.7, naive < 0.7, stack < 0.7 or naive < 0.7


if __name__ == "__main__":
    main()
