"""Evaluation of one candidate: merge, render, embed, score."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from objectives import (
    JOINT,
    AnyObjective,
    Baselines,
    Measurements,
    MetricError,
    Pictures,
    Scorer,
    interval,
    needed_features,
    resamples,
    score,
    unidentifiable,
)
from optimizer.errors import TrialError
from optimizer.merging import Recipe
from optimizer.rendering import AnyRenderer, PromptSet, always_asked
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.memory.oom import Note
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.record_fields import artifact_level, constraints, metrics, source_scores
from optimizer.search.sources.source import Ensemble, Mixer, Source
from studies.records import Evaluation

if TYPE_CHECKING:
    from optimizer.search.evaluation.study_routers import StudyRouters  # imports diffusers, which a fake base does not need

_RESAMPLES = 1000

Tick = Callable[[int], None]
Extractor = Callable[[Tensor], Tensor]
"""Function that computes a feature of pictures: uint8 (n, 3, height, width) → (n, ...)."""


@dataclass(frozen=True)
class RenderedBaselines:
    """Pictures of the base and of each source alone, with everything that candidates are scored by.

    Attributes:
        base: pictures of the base, uint8, (n, 3, height, width); None if effects are measured against the other sources.
        alone: pictures of each source alone, uint8, (n, 3, height, width).
        scorer: objectives with their references on these pictures.
        measurements: measurements of each source alone.
        left_out: indices of the sources that do not count in the score, because their effect cannot be told from chance.
    """

    base: Tensor | None
    alone: tuple[Tensor, ...]
    scorer: Scorer
    measurements: tuple[Measurements, ...]
    left_out: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Measured:
    """A candidate's evaluation, with data that is not stored in the record.

    Attributes:
        evaluation: evaluation record.
        images: pictures, uint8, (n, 3, height, width).
        measurements: measurements by all objectives, which the bootstrap resamples.
        candidate: rendered candidate, rounded to the dtype of the exported file.
    """

    evaluation: Evaluation
    images: Tensor
    measurements: Measurements
    candidate: Candidate

    def after_solving(self, seconds: float) -> Measured:
        """Returns the evaluation with the time that solving its merge took before, which counts as time of the trial."""
        if not seconds:
            return self
        found = self.evaluation
        changes = {"metrics": found.metrics | {"seconds_solve": seconds}, "seconds": found.seconds + seconds}
        return replace(self, evaluation=found.model_copy(update=changes))


@dataclass
class Evaluator:
    """Scores recipes on one prompt set.

    Attributes:
        ensemble: sources of the run.
        renderer: renderer of the pictures.
        extractors: feature name → function that computes it; contains every feature that the objectives need.
        objectives: objectives that the score is made of.
        prompts: prompts that every candidate is rendered on.
        aims: priorities and targets of the sources.
        tick: callback that receives the number of finished pictures.
        note: callback that receives a message if the sources do not fit on the GPU together.
        routers: routers of the study; None if the run cannot solve any.
        left_out: indices of the sources that do not count in the score, if that is decided already; None to decide it on these pictures.
    """

    ensemble: Ensemble
    renderer: AnyRenderer
    extractors: Mapping[str, Extractor]
    objectives: Sequence[AnyObjective]
    prompts: PromptSet
    aims: Aims = field(default_factory=Aims)
    tick: Tick | None = None
    note: Note | None = None
    routers: StudyRouters | None = None
    left_out: frozenset[int] | None = None
    _baselines: RenderedBaselines | None = field(default=None, init=False)
    _mixer: Mixer | None = field(default=None, init=False)

    @property
    def sources(self) -> Sequence[Source]:
        """Sources of the run."""
        return self.ensemble.sources

    @property
    def asked(self) -> Tensor:
        """Index of the source that each prompt asks for, or ``JOINT`` for all of them, int64, (n,)."""
        return torch.tensor([JOINT if p.source is None else p.source for p in self.prompts.prompts])

    @property
    def has_baselines(self) -> bool:
        """Whether the baselines are already rendered."""
        return self._baselines is not None

    def render_baselines(self) -> RenderedBaselines:
        """Renders and measures the base and each source alone; further calls return the same baselines.

        Raises:
            TrialError: one of them cannot be rendered.
        """
        if self._baselines is None:
            base = self._render_baseline("the base", None) if self.ensemble.based else None
            alone = tuple(self._render_baseline(f"{s.name} alone", self.alone(k)) for k, s in enumerate(self.sources))
            self._baselines = self._measure_baselines(base, alone)
        return self._baselines

    def alone(self, source: int) -> Candidate | None:
        """Returns a source without merging; None if the source is the base itself."""
        return self._load_mixer().alone(source)

    def _measure_baselines(self, base: Tensor | None, alone: Sequence[Tensor]) -> RenderedBaselines:
        """Computes the references, and measures each source alone now, so that the features of the baselines need not stay in memory."""
        zero = None if base is None else self._extract(base)
        pictures = tuple(self._extract(images) for images in alone)
        prompts = tuple(p.text for p in self.prompts.prompts)
        with metric_errors():
            always = always_asked([source.subject for source in self.sources])
            found = Baselines(zero, pictures, self.asked, self._texts(), prompts=prompts, always=always)
            left_out = unidentifiable(found) if self.left_out is None else self.left_out
            if len(left_out) == len(self.sources):
                return RenderedBaselines(base, tuple(alone), Scorer((), ()), (), left_out)
            scorer = Scorer.from_baselines(self.objectives, replace(found, left_out=left_out))
            return RenderedBaselines(base, tuple(alone), scorer, tuple(scorer.measure(each) for each in pictures), left_out)

    def _texts(self) -> Tensor:
        """Returns the index of each prompt's text, in order of first appearance, int64, (n,)."""
        indices = {text: index for index, text in enumerate(dict.fromkeys(p.text for p in self.prompts.prompts))}
        return torch.tensor([indices[p.text] for p in self.prompts.prompts])

    def _extract(self, images: Tensor) -> Pictures:
        """Computes the features that the objectives need."""
        features = {name: self.extractors[name](images) for name in sorted(needed_features(self.objectives))}
        return Pictures(images, features, self.renderer.device)

    def _load_mixer(self) -> Mixer:
        """Creates the mixer by the first call, because it may hold the sources on the renderer's device."""
        if self._mixer is None:
            self._mixer = self.ensemble.mixer(self.renderer.device, self.note, self.routers.router if self.routers else None)
        return self._mixer

    def calibrated(self, recipe: Recipe) -> tuple[Recipe, float]:
        """Returns the recipe with the router that its method needs, others as they are, and the seconds that solving it took.

        Raises:
            TrialError: the router cannot be solved.
        """
        if self.routers is None:
            return recipe, 0.0
        found = self.routers.calibrated(recipe)
        return found.recipe, found.seconds

    def compose(self) -> tuple[Tensor, Measurements]:
        """Returns the pictures, uint8, (n, 3, height, width), and the measurements of the composition of all sources.

        Raises:
            TrialError: the composition cannot be rendered.
        """
        assert self.routers is not None
        images = self._render_baseline("the composition", self.routers.composition())
        with metric_errors():
            return images, self.render_baselines().scorer.measure(self._extract(images))

    def evaluate(self, recipe: Recipe) -> Measured:
        """Merges, renders and scores one recipe.

        Raises:
            RecipeError: the recipe does not fit the sources.
            TrialError: the pictures or their score are not finite.
        """
        begun = time.perf_counter()
        scorer = self.render_baselines().scorer
        candidate, error = self._load_mixer().mixed(recipe)
        merge_seconds = time.perf_counter() - begun
        images = self._render(candidate)
        render_seconds = time.perf_counter() - begun - merge_seconds
        begun_scoring = time.perf_counter()
        with metric_errors():
            measurements = scorer.measure(self._extract(images))
        outcomes, names = scorer.compare(measurements), [s.name for s in self.sources]
        value = float(score(outcomes, self.aims.weights(names)))
        if not math.isfinite(value):
            raise TrialError(f"the score is {value}", remedy="look at the pictures of the sources alone")
        evaluation = Evaluation(
            recipe=recipe.data(),
            recipe_hash=recipe.hash,
            score=value,
            interval=self._interval(scorer, measurements, value),
            sources=source_scores(outcomes, names),
            artifacts=artifact_level(outcomes),
            metrics={
                **metrics(outcomes, names),
                "relative_error": error,
                "seconds_solve": 0.0,
                "seconds_merge": merge_seconds,
                "seconds_render": render_seconds,
                "seconds_score": time.perf_counter() - begun_scoring,
            },
            constraints=constraints(outcomes, names, self.aims),
            seconds=time.perf_counter() - begun,
        )
        return Measured(evaluation, images, measurements, candidate)

    def _interval(self, scorer: Scorer, measurements: Measurements, value: float) -> tuple[float, float] | None:
        """Returns the ends of the interval of a score over the prompts; None if there is only one prompt of a kind."""
        if int(torch.unique(self.asked, return_counts=True)[1].min()) < 2:
            return None
        outcomes = scorer.compare(measurements, resamples(self.asked, count=_RESAMPLES, seed=0))
        samples = score(outcomes, self.aims.weights([s.name for s in self.sources])).broadcast_to(_RESAMPLES)
        found = interval(value, samples, self.asked)
        return found.low, found.high

    def _render_baseline(self, what: str, candidate: Candidate | None) -> Tensor:
        """Renders a baseline, which is required; the error names it if it cannot be rendered."""
        try:
            return self._render(candidate)
        except TrialError as error:
            remedy = "check the file and the base that it was trained on, or draw with --precision bf16 or fp32"
            raise TrialError(error.problem, where=what, remedy=remedy) from error

    def _render(self, candidate: Candidate | None) -> Tensor:
        return self.renderer.render(self.prompts.prompts, candidate, tick=self.tick)


@contextmanager
def metric_errors() -> Iterator[None]:
    """Turns the error of a metric into that of the candidate that it measures.

    Raises:
        TrialError: a metric fails, or a value is not finite.
    """
    try:
        yield
    except MetricError as error:
        raise TrialError(error.problem, remedy=error.remedy) from error
