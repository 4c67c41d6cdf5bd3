"""Evaluating one candidate: merge, render, embed, score."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from objectives import AnyEmbedder, Effects, Envelope, Moments, artifact_level, envelope, moments, preservation, score
from optimizer.adapters import Adapter
from optimizer.errors import TrialError
from optimizer.merging import DTYPES, Merged, Merger, Recipe
from optimizer.rendering import AnyRenderer, PromptSet
from optimizer.rendering.memory import Note, attempt
from optimizer.search.sources import Source
from studies.records import Evaluation, SourceScore

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Baselines:
    """Pictures of the base and of each source alone, and what they say.

    Attributes:
        base: uint8, (n, 3, height, width).
        alone: one such tensor a source.
        effects: their embeddings.
        envelope: their picture statistics.
    """

    base: Tensor
    alone: tuple[Tensor, ...]
    effects: Effects
    envelope: Envelope


@dataclass(frozen=True)
class Measured:
    """A candidate's evaluation together with what does not belong into a record.

    Attributes:
        evaluation: the record.
        images: uint8, (n, 3, height, width).
        moments: for the bootstrap.
        merged: the adapter that was rendered, rounded to the dtype of the exported file.
    """

    evaluation: Evaluation
    images: Tensor
    moments: Moments
    merged: Adapter


@dataclass
class Evaluator:
    """Scores recipes on one prompt set.

    Attributes:
        sources: the run's sources.
        renderer: draws.
        embedder: the eye.
        prompts: what is rendered for every candidate.
        tick: called with the number of pictures finished.
        note: is told where the sources do not fit on the GPU together.
    """

    sources: Sequence[Source]
    renderer: AnyRenderer
    embedder: AnyEmbedder
    prompts: PromptSet
    tick: Tick | None = None
    note: Note | None = None
    _baselines: Baselines | None = field(default=None, init=False)
    _merger: Merger | None = field(default=None, init=False)
    _told: bool = field(default=False, init=False)

    @property
    def adapters(self) -> list[Adapter]:
        """The sources' adapters."""
        return [s.adapter for s in self.sources]

    @property
    def rendered(self) -> bool:
        """Whether the baselines were rendered already."""
        return self._baselines is not None

    @property
    def baselines(self) -> Baselines:
        """Base and sources alone, rendered on first use."""
        if self._baselines is None:
            base = self._render(None)
            alone = tuple(self._render(adapter) for adapter in self.adapters)
            asked = torch.tensor([-1 if p.source is None else p.source for p in self.prompts.prompts])
            effects = Effects(self.embedder(base), torch.stack([self.embedder(images) for images in alone]), asked)
            self._baselines = Baselines(base, alone, effects, envelope([base, *alone], self.renderer.device))
        return self._baselines

    def evaluate(self, recipe: Recipe) -> Measured:
        """Merge, render and score one recipe.

        Raises:
            RecipeError: the recipe does not fit the sources.
            TrialError: the pictures or their score are not finite.
        """
        begun = time.perf_counter()
        baselines = self.baselines
        merged = self._merged(recipe)
        merge_seconds = time.perf_counter() - begun
        images = self._render(merged.adapter)
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
                "relative_error": merged.error,
                "seconds_merge": merge_seconds,
                "seconds_render": render_seconds,
                "seconds_score": time.perf_counter() - begun_scoring,
            },
            seconds=time.perf_counter() - begun,
        )
        return Measured(evaluation, images, moments(vectors, baselines.effects), merged.adapter)

    def _merged(self, recipe: Recipe) -> Merged:
        """The merge as its file would hold it, so that what is scored is what is shipped.

        Of no source at all it has no modules: such a proposal is worth nothing, and a sampler that is told so does not come back to it.
        """
        if not any(recipe.weights):
            return Merged(Adapter(name="nothing", modules={}, base=self.adapters[0].base), 0.0)
        if self.renderer.device.type == "cpu":
            return self._merged_here(recipe)
        return attempt(self._merged_here, recipe) or self._merged_on_cpu(recipe)

    def _merged_here(self, recipe: Recipe) -> Merged:
        """Where the renderer computes, with the sources kept there."""
        if self._merger is None:
            self._merger = Merger(self.adapters, self.renderer.device)
        return self._merger.measured(recipe, dtype=DTYPES[recipe.dtype])

    def _merged_on_cpu(self, recipe: Recipe) -> Merged:
        """For a candidate that the GPU has no memory for."""
        if self.note and not self._told:
            self.note("out of memory while merging: candidates that are too large for the GPU are merged on the CPU")
        self._told = True
        return Merger(self.adapters, "cpu", keep=False).measured(recipe, dtype=DTYPES[recipe.dtype])

    def _render(self, adapter: Adapter | None) -> Tensor:
        return self.renderer.render(self.prompts.prompts, adapter, tick=self.tick)
