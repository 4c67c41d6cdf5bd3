"""Recipes of the pool: the simple ones that every study begins with, and a few that a search proposes."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.agreement.candidates import ALONE, BASE, Named
from benchmarks.solving.contestants import Bench
from optimizer.merging import METHODS, Recipe, merge
from optimizer.search.labels import STACK

EQUAL = "equal 0.8"
_UNEVEN = 0.6


def references(bench: Bench) -> Iterator[Named]:
    """Yields base and each source alone."""
    yield Named(BASE, None)
    for k, name in enumerate(bench.group):
        yield Named(ALONE + name, bench.adapters[k])


def contestants(bench: Bench) -> Iterator[Named]:
    """Yields the recipes that studies compare."""
    count = len(bench.group)
    yield Named(STACK, bench.linear([1.0] * count))
    yield Named(EQUAL, bench.linear([0.8] * count))
    for k, name in enumerate(bench.group):
        yield Named(f"{name} {_UNEVEN}", bench.linear([_UNEVEN if i == k else 1.0 for i in range(count)]))
    ties = Recipe(method="ties", weights=(1.0,) * count, seed=0, **METHODS["ties"].starting_values())
    yield Named("ties", merge(bench.adapters, ties))
