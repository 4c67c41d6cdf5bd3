"""Candidates of the comparison: merges good and bad, of every kind that a search draws, and some that it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import optuna

from benchmarks.solving.contestants import Bench
from optimizer.calibration.compositions import Composition
from optimizer.calibration.solve import Solver
from optimizer.merging import METHODS, Recipe, Router, merge
from optimizer.merging.blocks.maps import block_map
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.search.proposals.sampler import quiet
from optimizer.search.proposals.space import space_for

STRENGTHS = (0.3, 0.5, 0.65, 0.8, 1.0, 1.3, 2.0)
UNEVEN = (0.3, 0.6)
METHODS_AT_1 = ("ties", "dare_ties", "orthogonalize")
RANDOM = 8
CHECKPOINTS = (10, 30, 60, 100)
SOLVED_UNEVEN = (0.85, 1.2)
"""Weights of one source and of the others in merges that are solved, as far apart as a search proposes them."""
_RANDOM_METHODS = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
_BLOCKS = ("IN", "OUT")

BASE, ALONE = "base", "alone "
"""Name of the row of the base, and prefix of those of single sources."""
STACK = "all 1.0"


@dataclass(frozen=True)
class Named:
    """A candidate with the name of its row; None stands for the base."""

    name: str
    candidate: Candidate | None


def baselines(bench: Bench) -> Iterator[Named]:
    """Yields what every candidate is compared with: base, each source alone, all composed."""
    yield Named(BASE, None)
    for k, name in enumerate(bench.group):
        yield Named(ALONE + name, bench.adapters[k])
    yield Named("composition", bench.live.composed(bench.live.teacher))


def candidates(bench: Bench) -> Iterator[Named]:
    """Yields the candidates: weights, methods, blocks, random recipes of the search space, and compositions that people like less."""
    yield from _weighted(bench)
    yield from _methods(bench)
    yield from _random(bench)
    count = len(bench.group)
    yield Named("composition, average", bench.live.composed(Composition((1.0,) * count, "average")))
    yield Named("composition, switch", bench.live.composed(Composition((1.0,) * count, "switch")))


def _weighted(bench: Bench) -> Iterator[Named]:
    count = len(bench.group)
    for strength in STRENGTHS:
        yield Named(f"all {strength}", bench.linear([strength] * count))
    for k, name in enumerate(bench.group):
        for low in UNEVEN:
            yield Named(f"{name} {low}", bench.linear([low if i == k else 1.0 for i in range(count)]))
        if count > 2:  # of two sources, one alone is a baseline
            yield Named(f"{name} 0", bench.linear([float(i != k) for i in range(count)]))


def _methods(bench: Bench) -> Iterator[Named]:
    ones = (1.0,) * len(bench.group)
    for method in METHODS_AT_1:
        yield Named(method, merge(bench.adapters, Recipe(method=method, weights=ones, seed=0, **METHODS[method].starting_values())))
    for family in _BLOCKS:
        names = [block for block in block_map(bench.adapters[0].base).names if not block.startswith(family)]
        blocks = tuple(dict.fromkeys(names, 0.0) for _ in bench.group)
        yield Named(f"blocks {family}", merge(bench.adapters, Recipe(method="linear", weights=ones, blocks=blocks)))


def _random(bench: Bench) -> Iterator[Named]:
    quiet()
    space = space_for(bench.adapters, budget=50, methods=_RANDOM_METHODS, rank=None, dtype="fp16", seed=0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=int(np.prod([len(name) for name in space.names]))))
    for number in range(RANDOM):
        yield Named(f"random {number}", merge(bench.adapters, space.suggest(study.ask())))


def solved(bench: Bench) -> Iterator[Named]:
    """Yields merges that are solved on the base: ``ssr``, and ``distill`` from its first steps to its last."""
    for method in ("ssr", "distill"):
        recipe = bench.recipe(method, 0)
        solver = Solver(bench.live, bench.adapters, bench.calibration(recipe))
        for at, router in solver.solve(recipe, CHECKPOINTS if method == "distill" else ()).routers.items():
            yield Named(f"{method} {at} %" if method == "distill" else method, bench.routed(recipe, router))
        if method == "distill":
            yield from _reweighted(bench, recipe, router)


def _reweighted(bench: Bench, recipe: Recipe, router: Router) -> Iterator[Named]:
    """Yields a solved merge with uneven weights on its sources."""
    low, high = SOLVED_UNEVEN
    for k, name in enumerate(bench.group):
        weights = tuple(low if i == k else high for i in range(len(bench.group)))
        yield Named(f"distill, {name} {low}", bench.routed(recipe.replaced(weights=weights), router))
