"""Renderer interface of the search, and the factory that creates a renderer for a base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from optimizer.adapters import Adapter
from optimizer.errors import UsageError
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.fake import FakeRenderer
from optimizer.rendering.fake_spec import FakeSpec, is_fake
from optimizer.rendering.loading import Loading
from optimizer.rendering.memory.oom import Note
from optimizer.rendering.prompts import Prompt
from optimizer.rendering.settings import RenderSettings


class AnyRenderer(Protocol):
    """Interface of a renderer: renders images from prompts and a candidate.

    Attributes:
        settings: render settings, such as steps, guidance and batch size.
    """

    settings: RenderSettings

    @property
    def device(self) -> torch.device:
        """Device that computes."""

    @property
    def precision(self) -> str:
        """Device type and dtype, e.g. ``cuda torch.float16``; images of different ones differ in their last bits."""

    @property
    def plan(self) -> str:
        """One-line description of the memory placement of the base's models; empty if it was not planned."""

    @property
    def picture_size(self) -> tuple[int, int]:
        """Image size (height, width), in pixels."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Canonical module path → shape of its weight, of all modules that an adapter may change; empty if there is no model."""

    def fit_adapter(self, adapter: Adapter) -> Adapter:
        """Returns a source in the shapes of the base's weights; raises BaseModelError if it does not fit."""

    def special(self, prompts: Sequence[Prompt]) -> bool:
        """Returns whether any text has weights or exceeds CLIP's context; raises UsageError if one exceeds T5's limit."""

    def render(self, prompts: Sequence[Prompt], candidate: Candidate | None = None, *, tick: Callable[[int], None] | None = None) -> Tensor:
        """Returns images of the base with a candidate applied, uint8, (n, 3, height, width), on the CPU.

        ``tick`` is called with the number of images finished so far.

        Raises:
            TrialError: an image contains NaN.
        """


def load_renderer(
    base: str,
    settings: RenderSettings,
    loading: Loading | None = None,
    *,
    note: Note | None = None,
    adapters: Sequence[Adapter] = (),
    accelerator: Adapter | None = None,
    trained_on: str = "",
) -> AnyRenderer:
    """Returns the renderer of a base.

    Args:
        base: base model of a known family, or ``fake:`` with its settings.
        settings: render settings; missing values default to those of the base.
        loading: loading options. A fake base always computes on the CPU.
        note: called with one line for each warning and each fallback step after running out of memory.
        adapters: adapters that will be rendered; those of another family are rejected before the base is read.
        accelerator: LoRA that everything is drawn with, beside base and candidates; None for none.
        trained_on: model that the adapters were trained on, if another one draws. It is not loaded, but must be of the same family.

    Raises:
        BaseModelError: the base cannot be loaded, or is not of the family of the adapters, the accelerator or ``trained_on``.
        UsageError: the device is not available, or a fake base does not have the given setting or component.
    """
    loading = loading or Loading()
    if is_fake(base):
        _refuse_parts(vae=loading.vae, denoiser=loading.denoiser)
        return FakeRenderer(FakeSpec.of(base), settings, accelerator)
    # Imported here: diffusers takes seconds to import, and a fake base does not need it.
    from optimizer.rendering.assemble import assemble

    return assemble(base, settings, loading, note or (lambda line: None), adapters, accelerator=accelerator, trained_on=trained_on)


def draft_renderer(renderer: AnyRenderer, decoder: str) -> AnyRenderer:
    """Returns a copy of a renderer that decodes images with a tiny autoencoder.

    Args:
        renderer: renderer of a loaded base.
        decoder: folder of an ``AutoencoderTiny``; empty returns the renderer itself.

    Raises:
        BaseModelError: the decoder cannot be loaded, or does not fit the base.
        UsageError: the base is a fake one, which has no decoder.
    """
    if not decoder:
        return renderer
    if isinstance(renderer, FakeRenderer):
        _refuse_parts(decoder=decoder)
    from optimizer.rendering.pipelines.tiny_decoder import load_decoder
    from optimizer.rendering.renderer import Renderer

    assert isinstance(renderer, Renderer)
    return renderer.with_decoder(load_decoder(Path(decoder), renderer.pipeline, renderer.device))


def _refuse_parts(**parts: str) -> None:
    """Raises UsageError if a component is given for a fake base, which has none."""
    for option, given in parts.items():
        if given:
            what = "autoencoder" if option == "vae" else option
            raise UsageError(f"a fake base has no {what}", where=f"--{option}", remedy="leave it out")
