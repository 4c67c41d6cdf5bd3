"""Evaluation of one candidate: merge, render, embed, score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from objectives import (
    JOINT,
    AnyObjective,
    Baselines,
    Measurements,
    Pictures,
    Scorer,
    needed_features,
    unidentifiable,
)
from optimizer.errors import TrialError
from optimizer.merging import Recipe
from optimizer.rendering import AnyRenderer, PromptSet, always_asked
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.memory.oom import Note
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.pruning import first_half, lags, scale
from optimizer.search.evaluation.record_fields import artifact_level, constraints, metrics, source_scores
from optimizer.search.evaluation.scored import Scored, metric_errors, scored, without_each_prompt
from optimizer.search.evaluation.stopwatch import Stopwatch
from optimizer.search.sources.source import Ensemble, Mixer, Source
from studies.records import Evaluation, FirstHalf

if TYPE_CHECKING:
    from optimizer.search.evaluation.study_routers import StudyRouters  # imports diffusers, which a fake base does not need

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
        half: the same for the first half of the prompts, without columns; None if candidates are not pruned.
        measurements: measurements of each source alone.
        left_out: indices of the sources that do not count in the score, because their effect cannot be told from chance.
    """

    base: Tensor | None
    alone: tuple[Tensor, ...]
    scorer: Scorer
    measurements: tuple[Measurements, ...]
    left_out: frozenset[int] = frozenset()
    half: Scorer | None = None


@dataclass(frozen=True)
class Measured:
    """A candidate's evaluation, with data that is not stored in the record.

    Attributes:
        evaluation: evaluation record.
        images: pictures, uint8, (n, 3, height, width); of a pruned candidate, those of the first half of the prompts.
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
        prunes: whether candidates may be pruned.
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
    prunes: bool = False
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
            counted, half = replace(found, left_out=left_out), self._half
            scorer = Scorer.from_baselines(self.objectives, counted)
            judged = [objective for objective in self.objectives if not objective.column]
            on_half = None if half is None else Scorer.from_baselines(judged, counted.part(half))
            return RenderedBaselines(base, tuple(alone), scorer, tuple(scorer.measure(each) for each in pictures), left_out, on_half)

    @cached_property
    def _half(self) -> Tensor | None:
        """Prompts that candidates are pruned by, as indices; None if they are not pruned."""
        return first_half(self.asked) if self.prunes else None

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

    def still_pruned(self, found: Evaluation | None, best: Evaluation | None) -> Evaluation | None:
        """Returns a stored evaluation that was pruned if the best merge so far would have it pruned, too; else None."""
        half = self._half
        if half is None or not (found and found.first_half and best and best.first_half):
            return None
        return found if lags(found.first_half, best.first_half, self.asked[half]) else None

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

    def evaluate(self, recipe: Recipe, best: Evaluation | None = None) -> Measured:
        """Merges, renders and scores one recipe.

        Args:
            recipe: the recipe, whose router is known.
            best: evaluation of the best merge so far, from ``best_of``, if this one may be pruned.

        Raises:
            RecipeError: the recipe does not fit the sources.
            TrialError: the pictures or their score are not finite.
        """
        self.render_baselines()
        clock = Stopwatch()
        with clock.stage("merge"):
            candidate, error = self._load_mixer().mixed(recipe)
        drawn = self._drawn(candidate, best, clock)
        found, names = drawn.scored, [s.name for s in self.sources]
        evaluation = Evaluation(
            recipe=recipe.data(),
            recipe_hash=recipe.hash,
            score=found.value,
            interval=found.interval,
            sources=source_scores(found.outcomes, names),
            artifacts=artifact_level(found.outcomes),
            metrics={
                **metrics(found.outcomes, names),
                "relative_error": error,
                "seconds_solve": 0.0,
                **{f"seconds_{stage}": seconds for stage, seconds in clock.seconds.items()},
            },
            constraints=constraints(found.outcomes, names, self.aims),
            first_half=drawn.first_half,
            pruned=drawn.pruned,
            seconds=clock.total,
        )
        return Measured(evaluation, drawn.images, found.measurements, candidate)

    def _drawn(self, candidate: Candidate, best: Evaluation | None, clock: Stopwatch) -> _Drawn:
        """Draws and scores a candidate, half of the prompts first if it may be pruned."""
        half, scorer = self._half, self.render_baselines().half
        if half is None or scorer is None:
            with clock.stage("render"):
                images = self._render(candidate)
            return _Drawn(images, self._scored(self.render_baselines().scorer, images, self.asked, clock))
        with clock.stage("render"):
            images = self._render(candidate, half)
        found = self._scored(scorer, images, self.asked[half], clock)
        first = FirstHalf(score=found.value, without=without_each_prompt(scorer, found, len(half), self._priorities))
        if best and best.first_half and lags(first, best.first_half, self.asked[half]):
            return _Drawn(images, found.scaled(scale(best)), first, pruned=True)
        with clock.stage("render"):
            images = self._completed(candidate, images, half)
        return _Drawn(images, self._scored(self.render_baselines().scorer, images, self.asked, clock), first)

    def _completed(self, candidate: Candidate, images: Tensor, half: Tensor) -> Tensor:
        """Returns the pictures of all prompts, given those of the first half."""
        rest = torch.tensor([i for i in range(len(self.prompts)) if i not in set(half.tolist())])
        found = images.new_empty(len(self.prompts), *images.shape[1:])
        found[half], found[rest] = images, self._render(candidate, rest, len(half))
        return found

    def _scored(self, scorer: Scorer, images: Tensor, asked: Tensor, clock: Stopwatch) -> Scored:
        with clock.stage("score"):
            return scored(scorer, self._extract(images), asked, self._priorities)

    @property
    def _priorities(self) -> Sequence[float]:
        return self.aims.weights([source.name for source in self.sources])

    def _render_baseline(self, what: str, candidate: Candidate | None) -> Tensor:
        """Renders a baseline, which is required; the error names it if it cannot be rendered."""
        try:
            return self._render(candidate)
        except TrialError as error:
            remedy = "check the file and the base that it was trained on, or draw with --precision bf16 or fp32"
            raise TrialError(error.problem, where=what, remedy=remedy) from error

    def _render(self, candidate: Candidate | None, chosen: Tensor | None = None, done: int = 0) -> Tensor:
        """Returns the pictures of all prompts, or of those with these indices, after so many that are done."""
        prompts = self.prompts.prompts
        if chosen is None:
            return self.renderer.render(prompts, candidate, tick=self.tick)
        tick = None if self.tick is None else partial(_later, self.tick, done)
        return self.renderer.render([prompts[i] for i in chosen.tolist()], candidate, tick=tick)


@dataclass(frozen=True)
class _Drawn:
    """Pictures of a candidate, with their score, and its score on the first half of the prompts if it could be pruned."""

    images: Tensor
    scored: Scored
    first_half: FirstHalf | None = None
    pruned: bool = False


def _later(tick: Tick, before: int, done: int) -> None:
    tick(before + done)
