"""Which method shows two sources best at equal weights: ``python -m benchmarks.methods``.

Every method of the table at its default parameters merges pairs of demo sources at equal weights of 0.7, 1 and 1.4, since methods
differ in how large their result is; probes read the pictures, on prompts outside every training set. Printed is the probe truth of
each pair (its weaker source), the mean over the pairs and the gain over the plain sum at the same weights. The control puts noise of
the same norm, module by module, in the second source's place, in the plain sum: what its probe then reads is the floor, and what is
left of the first source tells how much of a fight is only loudness.

A default has to be chosen on one set of pairs and reported on another: ``--pairs choose``, ``--pairs report``, or names such as
``neon+hat``. Rows are printed as they come.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch

from benchmarks.truth import Judge, Truth, demo_sources_of, load_judge, unseen_prompts
from optimizer.adapters import Adapter, Factors
from optimizer.merging import METHODS, Recipe, merge
from optimizer.search.sources.loras import LoraSource

CHOOSE = ("neon+octopus", "mosaic+octopus", "pencil+hat", "robot+hat")
REPORT = ("neon+hat", "mosaic+hat", "pencil+octopus", "robot+octopus")
SETS = {"choose": CHOOSE, "report": REPORT}
CONTROL = "(noise as second)"
WEIGHTS = (0.7, 1.0, 1.4)
_KNOWN = [name for name, method in METHODS.items() if not method.calibrated]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("--pairs", nargs="+", default=["choose"], help=f"{' or '.join(SETS)}, or names like {CHOOSE[0]}")
    parser.add_argument("--methods", nargs="+", choices=_KNOWN, default=_KNOWN, help="beside linear, which is always first")
    parser.add_argument("--each", type=int, default=6, help="prompts of each kind: each source's own, and joint ones")
    parser.add_argument("--weights", nargs="+", type=float, default=WEIGHTS)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    pairs = [tuple(pair.split("+")) for name in asked.pairs for pair in SETS.get(name, (name,))]
    table(load_judge(), pairs, list(dict.fromkeys(["linear", *asked.methods])), asked.weights, asked.each)


def table(judge: Judge, pairs: Sequence[tuple[str, ...]], methods: Sequence[str], weights: Sequence[float], each: int) -> None:
    """Print a row a method and weight, and of each weight the control."""
    sources = [demo_sources_of(pair, judge) for pair in pairs]
    print(f"{'method':<20}{'weights':<9}" + "".join(f"{'+'.join(pair):>16}" for pair in pairs) + f"{'mean':>8}{'gain':>8}", flush=True)
    for weight in weights:
        label = f"{weight:g}"
        plain: float | None = None
        for method in methods:
            truths = [read(judge, pair, merged_by(method, pair, weight), each, f"{method} at {label}") for pair in sources]
            mean = sum(t.weakest for t in truths) / len(truths)
            plain = mean if plain is None else plain
            cells = "".join(f"{t.weakest:>16.2f}" for t in truths)
            print(f"{method:<20}{label:<9}{cells}{mean:>8.2f}{mean - plain:>+8.2f}", flush=True)
        truths = [read(judge, pair, control(pair, weight), each, f"{CONTROL} at {label}") for pair in sources]
        print(f"{CONTROL:<20}{label:<9}" + "".join(f"{' / '.join(f'{v:.2f}' for v in t.each.values()):>16}" for t in truths), flush=True)


def read(judge: Judge, sources: Sequence[LoraSource], adapter: Adapter, each: int, told: str) -> Truth:
    """Probe truth of one merge; how long it took goes to stderr."""
    begun = perf_counter()
    truth = judge.truth(sources, adapter, unseen_prompts(sources, each=each))
    seen = ", ".join(f"{name} {value:.2f}" for name, value in truth.each.items())
    print(f"{told}: {seen} ({perf_counter() - begun:.0f} s)", file=sys.stderr, flush=True)
    return truth


def merged_by(method: str, sources: Sequence[LoraSource], weight: float) -> Adapter:
    """The method's merge at equal weights and its default parameters, without a limit on its rank where it needs none."""
    fields: dict[str, Any] = METHODS[method].starting_values()
    rank = sum(max(f.rank for f in s.adapter.modules.values()) for s in sources) if METHODS[method].rank == "required" else None
    return merge([s.adapter for s in sources], Recipe(method=method, weights=(weight,) * len(sources), rank=rank, **fields))


def control(sources: Sequence[LoraSource], weight: float) -> Adapter:
    """The plain sum with noise in the second source's place."""
    first, second = (source.adapter for source in sources)
    return merge([first, noise(second)], Recipe(method="linear", weights=(weight, weight)))


def noise(adapter: Adapter) -> Adapter:
    """Random factors of the adapter's shapes, ranks and norms."""
    generator = torch.Generator().manual_seed(0)
    modules = {}
    for path, factors in adapter.modules.items():
        up = torch.randn(factors.up.shape, generator=generator)
        drawn = Factors(up, torch.randn(factors.down.shape, generator=generator), float(factors.rank), factors.shape)
        modules[path] = Factors(up * (factors.norm() / drawn.norm()), drawn.down, drawn.alpha, drawn.shape)
    return Adapter("noise", modules, base=adapter.base)


if __name__ == "__main__":
    main()
