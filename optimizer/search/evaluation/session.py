"""The evaluation session: sources, renderer and embedder of a run, loaded and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from objectives import EMBEDDINGS, AnyEmbedder, AnyObjective, EmbedderError, check_objectives, load_embedder, table
from optimizer.errors import UsageError
from optimizer.rendering import AnyRenderer, PromptSet, draft_renderer, load_renderer
from optimizer.rendering.fake_spec import is_fake
from optimizer.search.config import Config, Inputs
from optimizer.search.evaluation.evaluator import Evaluator
from optimizer.search.observer import Observer
from optimizer.search.proposals.space import SearchSpace, known_methods
from optimizer.search.sources.full_models import load_models
from optimizer.search.sources.loras import LoraEnsemble, load_loras
from optimizer.search.sources.source import Ensemble, Source
from studies.demo.world import GUIDANCE, STEPS, demo_base, demo_embedder

EMBEDDER, FAKE_EMBEDDER = "ViT-B-32/laion2b_s34b_b79k", "fake:"


@dataclass(frozen=True)
class Session:
    """Objects that all evaluations of a run share, loaded once.

    Attributes:
        config: configuration of the run.
        ensemble: sources, fitted to the base.
        renderer: renderer of the confirmation pictures.
        draft: renderer for the search; identical to ``renderer``, or with a tiny decoder.
        embedder: embedder of the pictures.
        base: location of the base model.
        objectives: objectives that the score is made of.
    """

    config: Config
    ensemble: Ensemble
    renderer: AnyRenderer
    draft: AnyRenderer
    embedder: AnyEmbedder
    base: str
    objectives: tuple[AnyObjective, ...]

    def evaluator(self, prompts: PromptSet, observer: Observer, *, final: bool = False) -> Evaluator:
        """Returns an evaluator on these prompts that reports pictures to the observer; ``final`` selects the full renderer."""
        renderer, count = self.renderer if final else self.draft, len(prompts)
        return Evaluator(
            ensemble=self.ensemble,
            renderer=renderer,
            extractors={EMBEDDINGS: self.embedder},
            objectives=self.objectives,
            prompts=prompts,
            tick=lambda done: observer.pictures(done, count),
            note=observer.note,
        )

    def space(self, budget: int) -> SearchSpace:
        """Returns the search space of a study with this budget."""
        return self.ensemble.space(budget)

    @property
    def sources(self) -> Sequence[Source]:
        """Sources of the run."""
        return self.ensemble.sources


def prepare(config: Config, observer: Observer) -> Session:
    """Loads and checks everything that a run needs, before anything is written; the observer receives notes about memory limits.

    Raises:
        UsageError: a source, the base, the embedder or a method cannot be used, or they are incompatible.
    """
    objectives = table.OBJECTIVES
    check_objectives(objectives, [EMBEDDINGS])
    inputs = config.inputs
    known_methods(config.search.methods, len(inputs.sources))
    loaded = load_models(config) if inputs.whole else LoraEnsemble(load_loras(inputs), config)
    settings, loading = config.rendering.render_settings(), config.loading.loading_options()
    if not inputs.drawn_with:
        settings = settings.completed(STEPS, GUIDANCE)
    if inputs.whole:
        loading = replace(loading, apply="weights")
    base = inputs.drawn_with or str(demo_base())
    renderer = load_renderer(base, settings, loading, note=observer.note, adapters=loaded.adapters)
    draft = draft_renderer(renderer, config.loading.decoder)
    ensemble = loaded.fitted(renderer)
    try:
        embedder = load_embedder(config.protocol.embedder or _default_embedder(inputs), device=str(renderer.device))
    except EmbedderError as error:
        raise UsageError(str(error), where="--embedder") from error
    return Session(config, ensemble, renderer, draft, embedder, base, objectives)


def _default_embedder(inputs: Inputs) -> str:
    """Returns the default embedder for the base."""
    return FAKE_EMBEDDER if is_fake(inputs.base) else EMBEDDER if inputs.drawn_with else str(demo_embedder())
