"""What the merge of one candidate of a search costs beside rendering one picture: ``python -m benchmarks.candidate``.

Demo sources are merged linearly as the search does it: the sources stay stacked between candidates, the weights change, and the result
is rounded to the exported file's dtype; beside it the same in fp32. Rendering is timed as the search renders, in batches, per picture.
Medians, in turns, in one process. The share is that of the rounded merge in one picture; the comparison of a merge with its recipe,
which the search records of every candidate, is told apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import TypeVar

import torch

from benchmarks.truth import demo_sources_of, load_judge, unseen_prompts
from optimizer.merging import DTYPES, Merger, Recipe, merge_report

T = TypeVar("T")
GROUPS = (("neon", "octopus"), ("robot", "hat"), ("mosaic", "owl", "hat"))


def main() -> None:
    """Print one line a group of sources."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.candidate", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"linear merges of demo sources, torch {torch.__version__}, {asked.threads} thread(s), medians of {asked.rounds} rounds")
    print(f"{'sources':<22}{'modules':>8}{'merge':>10}{'rounded':>11}{'picture':>10}{'share':>8}{'report':>10}")
    for group in GROUPS:
        row(group, asked.rounds)


def row(names: tuple[str, ...], rounds: int) -> None:
    """Time merge, rounding, comparison and rendering in turns, with other weights every time."""
    judge = load_judge()
    sources = demo_sources_of(names, judge)
    adapters = [source.adapter for source in sources]
    prompts = unseen_prompts(sources, each=6).prompts[:10]
    merger = Merger(adapters)
    times: list[tuple[float, ...]] = []
    for turn in range(rounds + 1):
        recipe = Recipe(method="linear", weights=tuple(0.5 + 0.01 * (turn + i) for i in range(len(names))))
        whole, _ = timed(lambda r=recipe: merger.merge(r))  # type: ignore[misc]
        merging, merged = timed(lambda r=recipe: merger.merge(r, dtype=DTYPES[r.dtype]))  # type: ignore[misc]
        rendering, _ = timed(lambda m=merged: judge.renderer.render(prompts, m))  # type: ignore[misc]
        reporting, _ = timed(lambda r=recipe, m=merged: merge_report(adapters, r, m))  # type: ignore[misc]
        times.append((whole, merging, rendering / len(prompts), reporting))
    whole, merging, rendering, reporting = (median(column) for column in zip(*times[1:], strict=True))  # the first round warms up
    print(
        f"{' + '.join(names):<22}{len(merged.modules):>8}{whole * 1e3:>7.1f} ms{merging * 1e3:>8.1f} ms{rendering * 1e3:>7.0f} ms"
        f"{merging / rendering:>8.2%}{reporting * 1e3:>7.1f} ms",
        flush=True,
    )


def timed(run: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and the result."""
    begun = perf_counter()
    result = run()
    return perf_counter() - begun, result


if __name__ == "__main__":
    main()
