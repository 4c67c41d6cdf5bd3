"""What the search is worth: ``python -m benchmarks.winners``.

Runs the main job on groups of demo sources and prints the probe truth (weakest source) of the exported file beside those of
stack and naive merge, all on prompts and seeds that neither search nor confirmation used. Score, embedder and sampler were chosen
on other groups, those of ``benchmarks.agreement`` (neon + hat is in both). The groups here are two triples and, apart from other groups
that the first scores were chosen on, every pair that lost a source (< 0.70) in both stack and naive merge, as the first probes read them.
Solved merges were developed on five of the groups, those of ``benchmarks.solving.groups.DEVELOPMENT``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.truth import Judge, Truth, demo_sources_of, load_judge, unseen_prompts
from optimizer.adapters import load_adapter
from optimizer.merging import METHODS, Recipe, merge
from optimizer.search.config import OPTIONS, Config
from optimizer.search.observer import Silent
from optimizer.search.run import run
from studies.demo.sheet import contact_sheet
from studies.demo.world import PREFIX

GROUPS = (
    ("neon", "octopus"),
    ("neon", "hat"),
    ("pencil", "octopus"),
    ("mosaic", "hat"),
    ("robot", "hat"),
    ("octopus", "owl"),
    ("neon", "pencil"),
    ("mosaic", "pencil"),
    ("pencil", "hat"),
    ("robot", "octopus"),
    ("neon", "octopus", "hat"),
    ("mosaic", "owl", "hat"),
)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.winners", description=__doc__)
    parser.add_argument("--budget", type=int, default=50)
    default = OPTIONS["methods"].default
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=default, help="methods that the searches try")
    parser.add_argument("--each", type=int, default=24, help="unseen prompts of each kind")
    parser.add_argument("--out", type=Path, default=Path("build/winners"), help="study directories; finished ones are not run again")
    parser.add_argument("--sheets", type=Path, default=Path("docs"), help="where the pictures go")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the groups to run")
    arguments = parser.parse_args()
    judge = load_judge()
    print(f"{'sources':<24} {'stack':>6} {'naive':>6} {'winner':>7} {'gain':>6}   winner, each source", flush=True)
    gains = []
    for number, group in enumerate(GROUPS):
        if arguments.only is None or number in arguments.only:
            options = {"budget": arguments.budget, "methods": tuple(arguments.methods), "out": arguments.out / "-".join(group)}
            gains.append(_row(judge, group, options, arguments.each, arguments.sheets))
    print(f"median gain over the better of stack and naive merge: {median(gains):+.2f}")


def _row(judge: Judge, group: tuple[str, ...], options: Mapping[str, Any], each: int, sheets: Path) -> float:
    config = Config.of(sources=tuple(PREFIX + name for name in group), **options)
    study = run(config, Silent())
    assert study.best is not None
    sources = demo_sources_of(group, judge)
    adapters = [s.adapter for s in sources]
    prompts = unseen_prompts(sources, each=each)
    plain = [merge(adapters, Recipe(method="linear", weights=(w,) * len(group))) for w in (1.0, 1 / len(group))]
    models = {"stack": plain[0], "naive": plain[1], "winner": judge.renderer.fit_adapter(load_adapter(study.best))}
    truths = {label: judge.truth(sources, adapter, prompts) for label, adapter in models.items()}
    shown = prompts.prompts[-each:][:8]
    rows = {s.name: s.adapter for s in sources} | models
    contact_sheet({label: judge.pictures(a, shown) for label, a in rows.items()}, sheets / f"winner-{'-'.join(group)}.png")
    return _printed(group, truths)


def _printed(group: tuple[str, ...], truths: dict[str, Truth]) -> float:
    stack, naive, winner = (truths[label].weakest for label in ("stack", "naive", "winner"))
    gain = winner - max(stack, naive)
    each = "  ".join(f"{name} {value:.2f}" for name, value in truths["winner"].each.items())
    print(f"{' + '.join(group):<24} {stack:>6.2f} {naive:>6.2f} {winner:>7.2f} {gain:>+6.2f}   {each}", flush=True)
    return gain


if __name__ == "__main__":
    main()
