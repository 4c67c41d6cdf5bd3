"""Live model: a loaded base with the branches of all sources, as solvers use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from optimizer.adapters import Adapter, live_modules
from optimizer.calibration.compositions import Asked, ComposedCandidate, Composition, Watch
from optimizer.calibration.live.denoiser import LiveDenoiser
from optimizer.calibration.live.routed_modules import RoutedModules, Routing
from optimizer.merging import correctable
from optimizer.rendering.pipeline_class import models_of, pipeline_class_of
from optimizer.rendering.prompts import Prompt, Subject, always_asked
from optimizer.rendering.renderer import Renderer
from optimizer.rendering.text.encodings import encoding_named
from optimizer.rendering.text.states import TextStates


@dataclass(frozen=True)
class LiveModel:
    """A loaded base with the branches of all sources.

    Attributes:
        renderer: renderer of the base.
        modules: branches of the sources.
        denoiser: denoiser of the base.
        subjects: what each source shows, in order.
    """

    renderer: Renderer
    modules: RoutedModules
    denoiser: LiveDenoiser
    subjects: tuple[Subject, ...]

    @classmethod
    def of(cls, renderer: Renderer, adapters: Sequence[Adapter], subjects: Sequence[Subject]) -> LiveModel:
        """Returns the live model of a renderer; raises BaseModelError if a source does not fit the base."""
        pipeline = renderer.pipeline
        record = pipeline_class_of(pipeline)
        fitted = [renderer.fit_adapter(adapter) for adapter in adapters]
        modules = RoutedModules(live_modules(models_of(pipeline)), fitted, renderer.dtype)
        denoiser = LiveDenoiser(pipeline.components[record.denoiser], encoding_named(record.encoding).inputs)
        return cls(renderer, modules, denoiser, tuple(subjects))

    def corrected(self, correction: Adapter) -> LiveModel:
        """Returns the live model with the branches of a correction beside those of the sources; no prompt asks for it.

        Args:
            correction: correction of the sources, from ``correction_of``.
        """
        return replace(self, modules=self.modules.extended(self.renderer.fit_adapter(correction)))

    @cached_property
    def untouched_texts(self) -> Mapping[str, tuple[int, int]]:
        """Modules of text encoders that no source changes, but a correction may: canonical path → numbers of rows and columns."""
        return {path: shape for path, shape in correctable(self.renderer.shapes).items() if path not in self.modules.ranks}

    @property
    def guidance(self) -> float:
        """Classifier-free guidance scale."""
        guidance = self.renderer.settings.guidance
        assert guidance is not None
        return guidance

    @property
    def guided(self) -> bool:
        """Whether the denoiser is called for the negative prompt, too."""
        return self.guidance > 1 and pipeline_class_of(self.renderer.pipeline).negates

    def asked(self, prompts: Sequence[Prompt]) -> Tensor:
        """Returns which sources prompts ask for, bool, (n, K).

        A joint prompt asks for all, an own prompt for its source and for every source without a trigger, which nothing can ask for.
        """
        always = always_asked(self.subjects)
        return torch.tensor([[p.source is None or p.source == k or k in always for k in range(len(self.subjects))] for p in prompts])

    @property
    def teacher(self) -> Composition:
        """Composition of all sources that merges are solved on."""
        return Composition.teacher([subject.role for subject in self.subjects])

    def composed(self, composition: Composition, watch: Watch | None = None, asked: Asked | None = None) -> ComposedCandidate:
        """Returns a composition as a candidate for the renderer.

        Args:
            composition: how outputs are combined.
            watch: called after each call of the denoiser.
            asked: returns which sources prompts ask for, bool, (n, K); None for what composed prompts say of themselves.
        """
        scheduler = self.renderer.pipeline.scheduler
        return ComposedCandidate(composition, self.modules, self.denoiser, asked or self.asked, lambda: len(scheduler.timesteps), watch)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Context in which no weight of the base takes part in a backward pass; gradients flow through it to the routers alone."""
        trained = [p for part in self._differentiated() for p in part.parameters() if p.requires_grad]
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    def offload_idle(self, *, texts: bool) -> bool:
        """Moves models that a training step does not need to the computer's memory; returns False if that is not possible or was done.

        The autoencoder never is needed; the text encoders are only if gradients pass through them, since texts are encoded once otherwise.

        Args:
            texts: whether gradients pass through the text encoders.
        """
        return self.renderer.offload_idle(self._text_encoders if texts else ())

    def keep_texts(self) -> None:
        """Has the text encoders stay on the device: the backward pass reads their weights after the denoiser has computed."""
        self.renderer.keep(self._text_encoders)

    @property
    def _text_encoders(self) -> list[str]:
        return [name for name in models_of(self.renderer.pipeline) if name.startswith("text_encoder")]

    def _differentiated(self) -> Iterator[nn.Module]:
        """Yields denoiser and text encoders; an autoencoder that was drawn with in another dtype cannot be asked for gradients again."""
        yield self.denoiser.model
        yield from (models_of(self.renderer.pipeline)[name] for name in self._text_encoders)

    @torch.no_grad()
    def encoded_by(self, routing: Routing, prompts: Sequence[Prompt]) -> dict[int, tuple[TextStates, TextStates]]:
        """Returns the text states of prompts, by their position, with these matrices in the text encoders."""
        with self.modules.installed(), self.modules.at(routing):
            states, blanks = self.renderer.encoded(prompts)
        return dict(enumerate(zip(states, blanks, strict=True)))
