"""What the objectives cost in processor time, and which share of one trial on the demo world that is.

python -m benchmarks.scoring [--metric NAME=MODULE:NAME_IN_MODULE ...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

from objectives import EMBEDDINGS, AnyObjective, Pictures, Scorer
from optimizer.merging import Recipe
from optimizer.search.config import Config
from optimizer.search.evaluation.prompt_sets import search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.observer import Silent

_REPEATS = 3


def main() -> None:
    """Prints the seconds of each part of a trial, and each objective's share of the trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metric", nargs="*", default=[], help="metrics to time beside the built-in objectives")
    config = Config.of(sources=("demo:neon", "demo:octopus"), metric=tuple(parser.parse_args().metric))
    session = prepare(config, Silent())
    evaluator = session.evaluator(search_prompts(config, session.sources), Silent())
    scorer = evaluator.render_baselines().scorer
    recipe = Recipe(method="linear", weights=(0.7, 0.7))
    measured = evaluator.evaluate(recipe)
    rows = {"embed": _seconds(lambda: session.embedder(measured.images))}
    pictures = Pictures(measured.images, {EMBEDDINGS: session.embedder(measured.images)}, session.renderer.device)
    rows |= _objectives(scorer, pictures)
    total = _seconds(lambda: evaluator.evaluate(recipe))
    print(f"one trial: {len(measured.images)} pictures, {total:.2f} s of one processor")
    for name, seconds in rows.items():
        print(f"{name:>16}  {seconds:7.3f} s  {seconds / total:6.1%}")
    scored = sum(rows.values())
    print(f"{'all of them':>16}  {scored:7.3f} s  {scored / total:6.1%}")


def _objectives(scorer: Scorer, pictures: Pictures) -> dict[str, float]:
    pairs = zip(scorer.objectives, scorer.references, strict=True)
    return {o.name: _seconds(partial(_compare, o, r, pictures)) for o, r in pairs}


def _compare(objective: AnyObjective, reference: object, pictures: Pictures) -> None:
    objective.compare(objective.measure(pictures, reference), reference)


def _seconds(work: Callable[[], object]) -> float:
    """Returns the median processor time of a call, which other programs on the machine do not change."""
    times = []
    for _ in range(_REPEATS):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return median(times)


if __name__ == "__main__":
    main()
