"""The bench: everything that evaluating candidates takes, loaded and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from objectives import AnyEmbedder, EmbedderError, load_embedder
from optimizer.errors import UsageError
from optimizer.rendering import AnyRenderer, Loading, PromptSet, RenderSettings, draft_renderer, load_renderer
from optimizer.rendering.fake_spec import is_fake
from optimizer.search.config import Config
from optimizer.search.evaluation.evaluator import Evaluator
from optimizer.search.observer import Observer
from optimizer.search.proposals.space import SearchSpace, known_methods
from optimizer.search.sources.full_models import load_models
from optimizer.search.sources.loras import LoraEnsemble, load_loras
from optimizer.search.sources.source import Ensemble, Source
from studies.demo.world import GUIDANCE, STEPS, demo_base, demo_embedder

EMBEDDER, FAKE_EMBEDDER = "ViT-B-32/laion2b_s34b_b79k", "fake:"


@dataclass(frozen=True)
class Bench:
    """What every evaluation of a run shares, loaded once.

    Attributes:
        config: of the run.
        ensemble: the sources, as they fit the base.
        renderer: draws as the base does.
        draft: draws for the search; the same renderer, or one with a tiny decoder.
        embedder: the eye.
        base: where the base is.
    """

    config: Config
    ensemble: Ensemble
    renderer: AnyRenderer
    draft: AnyRenderer
    embedder: AnyEmbedder
    base: str

    def evaluator(self, prompts: PromptSet, observer: Observer, *, final: bool = False) -> Evaluator:
        """An evaluator on these prompts, which reports pictures to the observer; for the search, or for the final say."""
        renderer, count = self.renderer if final else self.draft, len(prompts)
        return Evaluator(self.ensemble, renderer, self.embedder, prompts, lambda done: observer.pictures(done, count), observer.note)

    def space(self, budget: int) -> SearchSpace:
        """What a study of this budget searches."""
        return self.ensemble.space(budget)

    @property
    def sources(self) -> Sequence[Source]:
        """The run's sources."""
        return self.ensemble.sources


def prepare(config: Config, observer: Observer) -> Bench:
    """Load and check everything that a run needs, before anything is written; the observer is told where memory does not do for it.

    Raises:
        UsageError: a source, the base, the embedder or a method cannot be used, or they do not fit each other.
    """
    known_methods(config.methods, len(config.sources))
    loaded = load_models(config) if config.whole else LoraEnsemble(load_loras(config), config)
    base = config.drawn_with or str(demo_base())
    renderer = load_renderer(base, _settings(config), _loading(config), note=observer.note, adapters=loaded.adapters)
    draft = draft_renderer(renderer, config.decoder)
    ensemble = loaded.fitted(renderer)
    try:
        embedder = load_embedder(_eye(config), device=str(renderer.device))
    except EmbedderError as error:
        raise UsageError(str(error), where="--embedder") from error
    return Bench(config, ensemble, renderer, draft, embedder, base)


def _eye(config: Config) -> str:
    """The embedder that is asked for, or the one that suits the base."""
    suited = FAKE_EMBEDDER if is_fake(config.base) else EMBEDDER if config.drawn_with else str(demo_embedder())
    return config.embedder or suited


def _loading(config: Config) -> Loading:
    asked = Loading(**{field.name: getattr(config, field.name) for field in fields(Loading)})
    return replace(asked, apply="weights") if config.whole else asked


def _settings(config: Config) -> RenderSettings:
    names = ("steps", "guidance", "negative", "batch", "scheduler", "clip_skip", "resolution")
    asked = RenderSettings(**{name: getattr(config, name) for name in names})
    return asked if config.drawn_with else asked.completed(STEPS, GUIDANCE)
