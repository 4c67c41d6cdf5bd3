"""The evaluation session: sources, renderer and embedder of a run, loaded and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from objectives import EMBEDDINGS, AnyEmbedder, AnyObjective, EmbedderError, check_objectives, load_embedder, table
from optimizer.errors import UsageError
from optimizer.export import DrawnWith
from optimizer.merging.methods import AVAILABLE
from optimizer.rendering import AnyRenderer, PromptSet, draft_renderer, load_renderer
from optimizer.rendering.fake_spec import is_fake
from optimizer.search.config import Config, Inputs
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.evaluator import Evaluator
from optimizer.search.evaluation.fingerprint import continued, drawing_context
from optimizer.search.evaluation.given_prompts import AnySource, with_given_prompts
from optimizer.search.evaluation.prompt_file import read_prompt_file
from optimizer.search.evaluation.prompt_sets import words_of
from optimizer.search.evaluation.user_metrics import load_metrics, tested
from optimizer.search.observer import Observer
from optimizer.search.proposals.methods import available_needs, check_methods
from optimizer.search.proposals.space import NOTHING, SearchSpace
from optimizer.search.sources.accelerators import Accelerator, about_eval_base, advice_on_steps, drawn_with, joined, load_accelerators
from optimizer.search.sources.full_models import load_models
from optimizer.search.sources.loras import LoraEnsemble, LoraSource, load_loras
from optimizer.search.sources.source import Ensemble, Source
from studies.demo.world import GUIDANCE, STEPS, demo_base, demo_embedder
from studies.store import Store

if TYPE_CHECKING:
    from optimizer.search.evaluation.study_routers import StudyRouters

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
        base: location of the base model that the sources were trained on.
        objectives: objectives that the score is made of, those that add columns, and the metrics of the user.
        aims: priorities and targets of the sources.
        accelerators: LoRAs that everything is drawn with, and that are not merged.
    """

    config: Config
    ensemble: Ensemble
    renderer: AnyRenderer
    draft: AnyRenderer
    embedder: AnyEmbedder
    base: str
    objectives: tuple[AnyObjective, ...]
    aims: Aims
    accelerators: tuple[Accelerator, ...] = ()

    def evaluator(self, prompts: PromptSet, observer: Observer, routers: StudyRouters | None = None, *, final: bool = False) -> Evaluator:
        """Returns an evaluator on these prompts that reports pictures to the observer.

        Args:
            prompts: prompts that every candidate is rendered on.
            observer: receives the progress.
            routers: routers of the study, from ``routers``.
            final: whether to use the full renderer instead of the draft's.
        """
        renderer, count, search = self.renderer if final else self.draft, len(prompts), self.config.search
        return Evaluator(
            ensemble=self.ensemble,
            renderer=renderer,
            extractors={EMBEDDINGS: self.embedder},
            objectives=self.objectives,
            prompts=prompts,
            aims=self.aims,
            tick=lambda done: observer.pictures(done, count),
            note=observer.note,
            routers=routers,
            prunes=not (final or search.pareto or search.no_pruning),
        )

    def routers(self, store: Store, observer: Observer) -> StudyRouters | None:
        """Returns the routers of a study, which solve merges on this session's base; None if the run cannot solve any."""
        if available_needs(self.config) == AVAILABLE:
            return None
        # Imported here because they import diffusers, which a fake base does not need.
        from optimizer.rendering import Renderer
        from optimizer.search.evaluation.study_routers import StudyRouters

        assert isinstance(self.renderer, Renderer)
        return StudyRouters(
            store=store,
            renderer=self.renderer,
            adapters=self.ensemble.adapters,
            subjects=[source.subject for source in self.sources],
            words=words_of(self.config, self.sources),
            context=self.drawing_context,
            note=observer.note,
            progress=observer.solving,
        )

    def drawing_context(self, prompts: PromptSet) -> dict[str, object]:
        """Returns the inputs that pictures of some prompts depend on, JSON-serializable."""
        renderer, parts = self.renderer, self.config.loading.parts()
        return drawing_context(
            self.base,
            prompts,
            renderer.settings,
            renderer.precision,
            parts,
            special=renderer.special(prompts.prompts),
            accelerators=self.accelerators,
            eval_base=self.config.inputs.eval_base,
        )

    @property
    def drawn_with(self) -> DrawnWith:
        """What the pictures of the run are drawn with, besides the base model."""
        return drawn_with(self.accelerators, self.config.inputs.eval_base, self.renderer.settings)

    def space(self, budget: int, begun: Mapping[str, str] = NOTHING) -> SearchSpace:
        """Returns the search space of a study with this budget.

        Args:
            budget: budget that the study started with.
            begun: inputs that it started with. A study of an earlier version goes on in the space of that version.
        """
        return continued(self.ensemble.space(budget), begun)

    @property
    def sources(self) -> Sequence[Source]:
        """Sources of the run."""
        return self.ensemble.sources


def prepare(config: Config, observer: Observer) -> Session:
    """Loads and checks everything that a run needs, before anything is written; the observer receives notes about memory limits.

    Raises:
        UsageError: a source, the base, the embedder, a metric, a method, a priority, a target, a range of weights or a group of blocks
            cannot be used, or they are incompatible.
    """
    inputs = config.inputs
    objectives = (*table.OBJECTIVES, *(() if is_fake(inputs.drawing_base) else table.COLUMNS))
    check_objectives(objectives, [EMBEDDINGS])
    metrics = load_metrics(config.protocol.metric, objectives)
    check_methods(config)
    loaded = _load_sources(config)
    aims = Aims.of(config.protocol, [source.name for source in loaded.sources])
    loaded.space(config.search.budget)  # fails now, before the base is loaded, if a range or a group of blocks cannot be searched
    settings, loading = config.rendering.render_settings(), config.loading.loading_options()
    if not inputs.drawing_base:
        settings = settings.completed(STEPS, GUIDANCE)
    if inputs.whole:
        loading = replace(loading, apply="weights")
    accelerators = _load_accelerators(inputs, loaded)
    base = inputs.base or (inputs.drawing_base if inputs.whole else str(demo_base()))
    renderer = load_renderer(
        inputs.eval_base or base,
        settings,
        loading,
        note=observer.note,
        adapters=loaded.adapters,
        accelerator=joined(accelerators),
        trained_on=base if inputs.eval_base else "",
    )
    if advice := advice_on_steps(accelerators, config.rendering.steps, renderer.settings):
        observer.note(advice)
    draft = draft_renderer(renderer, config.loading.decoder)
    with about_eval_base(inputs.eval_base):
        ensemble = loaded.fitted(renderer)
    try:
        embedder = load_embedder(config.protocol.embedder or _default_embedder(inputs), device=str(renderer.device))
    except EmbedderError as error:
        raise UsageError(str(error), where="--embedder") from error
    metrics = tested(metrics, renderer, len(ensemble.sources), based=ensemble.based)
    return Session(config, ensemble, renderer, draft, embedder, base, (*objectives, *metrics), aims, accelerators)


def _load_sources(config: Config) -> Ensemble:
    """Returns the sources of a run, with what its prompt file says about them."""
    if config.inputs.whole:
        models = load_models(config)
        return replace(models, sources=_with_prompts(models.sources, config))
    return LoraEnsemble(_with_prompts(load_loras(config.inputs), config), config)


def _load_accelerators(inputs: Inputs, ensemble: Ensemble) -> tuple[Accelerator, ...]:
    sources = [source for source in ensemble.sources if isinstance(source, LoraSource)]
    return load_accelerators(inputs.with_, sources, base=inputs.drawing_base, allow_unknown=inputs.allow_unknown)


def _with_prompts(sources: Sequence[AnySource], config: Config) -> Sequence[AnySource]:
    if not config.protocol.prompts:
        return sources
    path, inputs = Path(config.protocol.prompts), config.inputs
    return with_given_prompts(sources, read_prompt_file(path), path, roles=not inputs.roles, triggers=not inputs.triggers)


def _default_embedder(inputs: Inputs) -> str:
    """Returns the default embedder for the base."""
    return FAKE_EMBEDDER if is_fake(inputs.drawing_base) else str(demo_embedder()) if inputs.demo else EMBEDDER
