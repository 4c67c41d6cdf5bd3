"""Contestants: how each method of the benchmark makes its merge, or draws without one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from benchmarks.scored import scorer_of
from benchmarks.solving.groups import Group
from benchmarks.solving.measuring import measured
from benchmarks.solving.rows import Row, Rows
from benchmarks.solving.weights import chosen_weights
from benchmarks.truth import UNSEEN, Judge, demo_sources_of, truth_of, unseen_prompts
from objectives import EMBEDDINGS, Pictures, load_embedder, score
from optimizer.adapters import Adapter
from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.prompts import calibration_prompts, prompts_to_solve_on
from optimizer.calibration.solve import Solution, Solver
from optimizer.merging import METHODS, Recipe, Router, merge
from optimizer.rendering import PromptSet
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.search.evaluation.prompt_file import read_words
from optimizer.search.sources.loras import LoraSource
from studies.atomic import write_text
from studies.demo.world import demo_embedder, demo_words

CEILING = "ceiling"
"""Name of the reading of each source alone, on the prompts that ask for it."""

ALONE = "alone-"
"""Prefix of the rows of a single source."""

FIXED = ("stack", "equal", "weights", "ties", "dare_ties", "orthogonalize")
"""Recipes that need no pass over the model, apart from the choice of weights."""

WEIGHTED = "distill_weights"
"""The router of ``distill``, with weights of the sources that have the best score on other prompts, as a search would choose them."""

METHODS_OF_ALL = ("composition", *FIXED, "ssr", "iteris", "distill", WEIGHTED, "zip")
"""Methods in the order in which they run."""

CHOICE = 555_000_001  # seed of prompts, far from those that merges are solved on and from the unseen ones
_CHOICE_PROMPTS = 4
_SCORED_PROMPTS = 8


@dataclass(frozen=True)
class Bench:
    """One group of sources on the loaded base.

    Attributes:
        group: names of the sources.
        judge: renderer and probes.
        rows: where rows are kept.
        each: number of unseen prompts of each kind.
    """

    group: Group
    judge: Judge
    rows: Rows
    each: int

    @cached_property
    def sources(self) -> list[LoraSource]:
        """Sources in the shapes of the base."""
        return demo_sources_of(self.group, self.judge)

    @cached_property
    def adapters(self) -> list[Adapter]:
        """Adapters of the sources."""
        return [source.adapter for source in self.sources]

    @cached_property
    def live(self) -> LiveModel:
        """Base with the branches of the sources."""
        return LiveModel.of(self.judge.renderer, self.adapters, [source.subject for source in self.sources])

    def unseen(self, seed: int) -> PromptSet:
        """Returns the prompts that a result is read on."""
        return unseen_prompts(self.sources, each=self.each, seed=UNSEEN + seed)

    def calibration(self, recipe: Recipe) -> PromptSet:
        """Returns the prompts that a recipe is solved on, as ``optimize merge`` composes them."""
        return prompts_to_solve_on(self.live.subjects, read_words(demo_words()), recipe)

    def prompts_of(self, seed: int, own: int, joint: int) -> PromptSet:
        """Returns prompts to solve on, in numbers that differ from the default."""
        return calibration_prompts(self.live.subjects, read_words(demo_words()), seed, own, joint)

    def draw(self, candidate: Candidate | None, seed: int) -> Tensor:
        """Returns pictures of the unseen prompts, uint8, (n, 3, 64, 64)."""
        return self.judge.renderer.render(self.unseen(seed).prompts, candidate)

    def run(self, method: str, seed: int) -> Row | None:
        """Records the row of a method; returns None if it was recorded before."""
        if self.rows.has(self.group, method, seed):
            return None
        made, seconds, memory = measured(lambda: self._made(method, seed))
        pictures, drawing, peak = measured(lambda: self.draw(made.candidate, seed))
        told = {**made.told, "drawing_seconds": drawing, "drawing_memory": peak}
        row = Row(self.group, method, seed, self.each, seconds, memory, told)
        self.rows.record(row, pictures, made.router.serialised() if made.router else None)
        return row

    def linear(self, weights: Sequence[float]) -> Adapter:
        """Returns the weighted sum of the sources."""
        return merge(self.adapters, Recipe(method="linear", weights=tuple(weights)))

    def routed(self, recipe: Recipe, router: Router) -> Adapter:
        """Returns the merge of a solved recipe and its router."""
        return merge(self.adapters, recipe.replaced(calibration=router.hash), routers=[router])

    def recipe(self, method: str, seed: int) -> Recipe:
        """Returns the recipe of a method, all sources with weight 1."""
        return Recipe(method=method, weights=(1.0,) * len(self.group), seed=seed, **METHODS[method].starting_values())

    def weighted(self, seed: int, weights: Sequence[float]) -> Adapter:
        """Returns the merge of the recorded router of ``distill`` with weights on its sources."""
        recipe = self.recipe("distill", seed).replaced(weights=tuple(weights))
        return self.routed(recipe, self.rows.router(self.group, "distill", seed))

    def _made(self, method: str, seed: int) -> _Made:
        count = len(self.group)
        if method.startswith(ALONE):
            return _Made(self.adapters[self.group.index(method.removeprefix(ALONE))])
        if method == "composition":
            return _Made(self.live.composed(self.live.teacher))
        if method == WEIGHTED:
            weights = chosen_by_score(self, seed)
            return _Made(self.weighted(seed, weights), {"weights": weights})
        if method in METHODS and METHODS[method].solved:
            recipe = self.recipe(method, seed)
            found = solved_by(recipe, self)
            router = found.routers[found.last]
            return _Made(self.routed(recipe, router), {"loss": found.losses.get(found.last)}, router)
        if method in ("stack", "equal", "weights"):
            weights = {"stack": lambda: (1.0,) * count, "equal": lambda: (1 / count,) * count, "weights": self._best_weights}[method]()
            return _Made(self.linear(weights), {"weights": weights})
        return _Made(merge(self.adapters, self.recipe(method, seed)))

    def _best_weights(self) -> tuple[float, ...]:
        """Returns the weights that read best on prompts of their own, chosen once for all seeds."""
        place = self.rows.folder / "+".join(self.group) / "weights.json"
        if not place.exists():
            prompts = unseen_prompts(self.sources, each=_CHOICE_PROMPTS, seed=CHOICE)
            tried = chosen_weights(len(self.group), lambda weights: self._reading(weights, prompts))
            place.parent.mkdir(parents=True, exist_ok=True)
            best = max(tried, key=lambda weights: tried[weights])
            write_text(place, json.dumps({"weights": best, "tried": [[*weights, value] for weights, value in tried.items()]}))
        return tuple(json.loads(place.read_text())["weights"])

    def _reading(self, weights: tuple[float, ...], prompts: PromptSet) -> float:
        """Returns the weakest source's reading; a tenth of the mean tells apart weights that lose a source."""
        traits = self.judge.probes.read(self.judge.renderer.render(prompts.prompts, self.linear(weights))).traits
        each = truth_of(self.sources, traits, prompts).each.values()
        return min(each) + 0.1 * sum(each) / len(each)


@dataclass(frozen=True)
class _Made:
    candidate: Candidate | None
    told: dict[str, Any] = field(default_factory=dict)
    router: Router | None = None


def chosen_by_score(bench: Bench, seed: int) -> tuple[float, ...]:
    """Returns the weights on the sources of ``distill`` that the product scores best, on prompts of their own."""
    prompts, embedder = unseen_prompts(bench.sources, each=_SCORED_PROMPTS, seed=CHOICE + seed), load_embedder(demo_embedder())

    def drawn(candidate: Candidate | None) -> Pictures:
        images = bench.judge.renderer.render(prompts.prompts, candidate)
        return Pictures(images, {EMBEDDINGS: embedder(images)})

    def value(weights: tuple[float, ...]) -> float:
        return float(score(scorer.compare(scorer.measure(drawn(bench.weighted(seed, weights))))))

    scorer = scorer_of(bench.sources, prompts, drawn(None), [drawn(adapter) for adapter in bench.adapters])
    tried = chosen_weights(len(bench.group), value)
    return max(tried, key=lambda weights: tried[weights])


def solved_by(recipe: Recipe, bench: Bench) -> Solution:
    """Solves the router of a recipe, as a search does."""
    return Solver(bench.live, bench.adapters, bench.calibration(recipe)).solve(recipe)
