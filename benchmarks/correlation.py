"""Whether the score sees what the probes see: ``python -m benchmarks.correlation``.

Draws random recipes from the search space of several groups of demo sources, scores each with the search's own evaluator, reads
its probe truth on unseen prompts, and prints Spearman's rank correlation with preservation and with the score, per group and over
all. Score, embedder and sampler were chosen on other groups: mosaic + robot, neon + owl, neon + robot, owl + hat, pencil + robot,
robot + owl, neon + robot + owl.
"""

from __future__ import annotations

import argparse

import numpy as np
import optuna
import pandas as pd

from benchmarks.truth import Judge, demo_sources_of, load_judge, unseen_prompts
from objectives import EMBEDDINGS, load_embedder, table
from optimizer.errors import TrialError
from optimizer.merging import Recipe, merge
from optimizer.rendering import compose
from optimizer.search.config import Config
from optimizer.search.evaluation.evaluator import Evaluator
from optimizer.search.evaluation.prompt_sets import read_words
from optimizer.search.proposals.sampler import quiet
from optimizer.search.proposals.space import space_for
from optimizer.search.sources.loras import LoraEnsemble
from studies.demo.world import demo_embedder, demo_words

GROUPS = (("neon", "octopus"), ("mosaic", "octopus"), ("pencil", "hat"), ("robot", "hat"))
_METHODS = ("ties", "dare_linear", "dare_ties", "magnitude_prune")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.correlation", description=__doc__)
    parser.add_argument("--recipes", type=int, default=30, help="random recipes a group")
    parser.add_argument("--each", type=int, default=8, help="unseen prompts of each kind")
    arguments = parser.parse_args()
    quiet()
    judge = load_judge()
    frame = pd.concat([_group(judge, group, arguments.recipes, arguments.each) for group in GROUPS])
    print(f"{'Spearman with probe truth':<36} preservation   score")
    for group, rows in [*frame.groupby("group"), ("all", frame)]:
        print(f"{group:<20} {len(rows):>4} recipes   {_spearman(rows, 'preservation'):>12.2f} {_spearman(rows, 'score'):>7.2f}")


def _group(judge: Judge, group: tuple[str, ...], count: int, each: int) -> pd.DataFrame:
    sources = demo_sources_of(group, judge)
    seen = compose([s.subject for s in sources], read_words(demo_words()), own=4, joint=8, seed=0)
    ensemble = LoraEnsemble(sources, Config.of(sources=group))
    evaluator = Evaluator(ensemble, judge.renderer, {EMBEDDINGS: load_embedder(demo_embedder())}, table.OBJECTIVES, seen)
    unseen = unseen_prompts(sources, each=each)
    rows = []
    for recipe in _random_recipes(ensemble, count):
        try:
            evaluation = evaluator.evaluate(recipe).evaluation
        except TrialError as error:
            print(f"left out: {error}", flush=True)
            continue
        truth = judge.truth(sources, merge(ensemble.adapters, recipe), unseen)
        preserved = min(s.preservation for s in evaluation.sources.values())
        rows.append({"group": " + ".join(group), "score": evaluation.score, "preservation": preserved, "truth": truth.weakest})
        print(f"{rows[-1]['group']:<20} {recipe.method:<16} preservation {preserved:.2f}  truth {truth.weakest:.2f}", flush=True)
    return pd.DataFrame(rows)


def _random_recipes(ensemble: LoraEnsemble, count: int) -> list[Recipe]:
    space = space_for(ensemble.adapters, budget=50, methods=_METHODS, rank=None, dtype="fp16", seed=0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=int(np.prod([len(n) for n in space.names]))))
    return [space.suggest(study.ask()) for _ in range(count)]


def _spearman(rows: pd.DataFrame, column: str) -> float:
    return float(rows[[column, "truth"]].corr(method="spearman").iloc[0, 1])


if __name__ == "__main__":
    main()
