"""Evaluation of one candidate: merge, render, embed, score."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from objectives import JOINT, AnyEmbedder, Effects, Envelope, Moments, artifact_level, envelope, moments, others, preservation, score
from optimizer.errors import TrialError
from optimizer.merging import Recipe
from optimizer.rendering import AnyRenderer, PromptSet
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.memory.oom import Note
from optimizer.search.sources.source import Ensemble, Mixer, Source
from studies.records import Evaluation, SourceScore

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Baselines:
    """Pictures of the base and of each source alone, with their embeddings and statistics.

    Attributes:
        base: pictures of the base, uint8, (n, 3, height, width); None if effects are measured against the other sources.
        alone: pictures of each source alone, uint8, (n, 3, height, width).
        effects: embeddings of the baselines.
        envelope: range of the baselines' picture statistics.
    """

    base: Tensor | None
    alone: tuple[Tensor, ...]
    effects: Effects
    envelope: Envelope


@dataclass(frozen=True)
class Measured:
    """A candidate's evaluation, with data that is not stored in the record.

    Attributes:
        evaluation: evaluation record.
        images: pictures, uint8, (n, 3, height, width).
        moments: sufficient statistics for the bootstrap.
        candidate: rendered candidate, rounded to the dtype of the exported file.
    """

    evaluation: Evaluation
    images: Tensor
    moments: Moments
    candidate: Candidate


@dataclass
class Evaluator:
    """Scores recipes on one prompt set.

    Attributes:
        ensemble: sources of the run.
        renderer: renderer of the pictures.
        embedder: embedder of the pictures.
        prompts: prompts that every candidate is rendered on.
        tick: callback that receives the number of finished pictures.
        note: callback that receives a message if the sources do not fit on the GPU together.
    """

    ensemble: Ensemble
    renderer: AnyRenderer
    embedder: AnyEmbedder
    prompts: PromptSet
    tick: Tick | None = None
    note: Note | None = None
    _baselines: Baselines | None = field(default=None, init=False)
    _own_mixer: Mixer | None = field(default=None, init=False)

    @property
    def sources(self) -> Sequence[Source]:
        """Sources of the run."""
        return self.ensemble.sources

    @property
    def _mixer(self) -> Mixer:
        """Mixer, created on first use, because it may hold the sources on the renderer's device."""
        if self._own_mixer is None:
            self._own_mixer = self.ensemble.mixer(self.renderer.device, self.note)
        return self._own_mixer

    @property
    def rendered(self) -> bool:
        """Whether the baselines are already rendered."""
        return self._baselines is not None

    @property
    def baselines(self) -> Baselines:
        """Baselines, rendered on first use."""
        if self._baselines is None:
            base = self._drawn("the base", None) if self.ensemble.based else None
            alone = tuple(self._drawn(f"{s.name} alone", self._mixer.alone(k)) for k, s in enumerate(self.sources))
            shown = alone if base is None else (base, *alone)
            self._baselines = Baselines(base, alone, self._effects(base, alone), envelope(list(shown), self.renderer.device))
        return self._baselines

    def _effects(self, base: Tensor | None, alone: Sequence[Tensor]) -> Effects:
        """Returns the effects, measured from the base's embeddings; without a base, from the mean embedding of the other sources."""
        asked = torch.tensor([JOINT if p.source is None else p.source for p in self.prompts.prompts])
        seen = torch.stack([self.embedder(images) for images in alone])
        return Effects(others(seen, asked) if base is None else self.embedder(base), seen, asked)

    def evaluate(self, recipe: Recipe) -> Measured:
        """Merges, renders and scores one recipe.

        Raises:
            RecipeError: the recipe does not fit the sources.
            TrialError: the pictures or their score are not finite.
        """
        begun = time.perf_counter()
        baselines = self.baselines
        candidate, error = self._mixer.mixed(recipe)
        merge_seconds = time.perf_counter() - begun
        images = self._render(candidate)
        render_seconds = time.perf_counter() - begun - merge_seconds
        begun_scoring = time.perf_counter()
        vectors = self.embedder(images)
        shares = preservation(vectors, baselines.effects)
        artifacts, parts = artifact_level(images, baselines.envelope, self.renderer.device)
        value = score(shares, artifacts)
        if not math.isfinite(value):
            raise TrialError(f"the score is {value}", remedy="look at the pictures of the sources alone")
        evaluation = Evaluation(
            recipe=recipe.data(),
            recipe_hash=recipe.hash,
            score=value,
            sources={
                s.name: SourceScore(preservation=p.mean, own=p.own, joint=p.joint, leakage=p.leakage)
                for s, p in zip(self.sources, shares, strict=True)
            },
            artifacts=artifacts,
            metrics={
                **{f"artifact_{name}": value for name, value in parts.items()},
                "relative_error": error,
                "seconds_merge": merge_seconds,
                "seconds_render": render_seconds,
                "seconds_score": time.perf_counter() - begun_scoring,
            },
            seconds=time.perf_counter() - begun,
        )
        return Measured(evaluation, images, moments(vectors, baselines.effects), candidate)

    def _drawn(self, what: str, candidate: Candidate | None) -> Tensor:
        """Returns pictures of a required baseline; the error names it if it cannot be rendered."""
        try:
            return self._render(candidate)
        except TrialError as error:
            remedy = "check the file and the base that it was trained on, or draw with --precision bf16 or fp32"
            raise TrialError(error.problem, where=what, remedy=remedy) from error

    def _render(self, candidate: Candidate | None) -> Tensor:
        return self.renderer.render(self.prompts.prompts, candidate, tick=self.tick)
