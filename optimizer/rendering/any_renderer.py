"""What the search needs of a renderer, and the one place where a base is turned into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """What turns prompts and a change of weights into pictures.

    Attributes:
        settings: steps, guidance, batch size.
    """

    settings: RenderSettings

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def precision(self) -> str:
        """Kind of device and number format, e.g. ``cuda torch.float16``: pictures of another one differ in their last bits."""

    @property
    def plan(self) -> str:
        """Where the base's models lie in memory and why, in one line; empty where that was not planned."""

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) of a picture, in pixels."""

    def fitted(self, adapter: Adapter) -> Adapter:
        """A source in the shapes of the base's weights; raises BaseModelError where it does not fit."""

    def special(self, prompts: Sequence[Prompt]) -> bool:
        """Whether a text has weights or is longer than CLIP reads at once; raises UsageError where one is longer than T5 reads."""

    def render(self, prompts: Sequence[Prompt], candidate: Candidate | None = None, *, tick: Callable[[int], None] | None = None) -> Tensor:
        """Pictures of the base with a candidate in place, uint8, (n, 3, height, width), on the CPU; ``tick`` is called with the number of
        pictures finished so far.

        Raises:
            TrialError: a picture is not a number.
        """


def load_renderer(
    base: str,
    settings: RenderSettings,
    loading: Loading | None = None,
    *,
    note: Note | None = None,
    adapters: Sequence[Adapter] = (),
) -> AnyRenderer:
    """The renderer of a base.

    Args:
        base: a diffusers pipeline directory of a known family, or ``fake:`` with its settings.
        settings: steps, guidance, batch size; what is not given is what is usual for the base.
        loading: how it is brought into memory. A fake base computes on the CPU whatever is asked for.
        note: is told, in one line, of what is done where memory runs out.
        adapters: what will be drawn with it, so that those for another family are refused before the base is read.

    Raises:
        BaseModelError: the base cannot be loaded, or is not of the adapters' family.
        UsageError: the device is not there, or a fake base has no such setting or part.
    """
    loading = loading or Loading()
    if is_fake(base):
        _refuse_parts(vae=loading.vae, denoiser=loading.denoiser)
        return FakeRenderer(FakeSpec.of(base), settings)
    # Only here: diffusers takes seconds to import, which a fake base does not need.
    from optimizer.rendering.assemble import assemble

    return assemble(base, settings, loading, note or (lambda line: None), adapters)


def draft_renderer(renderer: AnyRenderer, decoder: str) -> AnyRenderer:
    """The same renderer, whose pictures a tiny autoencoder decodes.

    Args:
        renderer: of a base that is loaded.
        decoder: folder of an ``AutoencoderTiny``; empty gives the renderer itself.

    Raises:
        BaseModelError: it cannot be loaded, or does not fit the base.
        UsageError: a fake base has no such part.
    """
    if not decoder:
        return renderer
    if isinstance(renderer, FakeRenderer):
        _refuse_parts(decoder=decoder)
    from optimizer.rendering.pipelines.tiny_decoder import load_decoder
    from optimizer.rendering.renderer import Renderer

    assert isinstance(renderer, Renderer)
    return renderer.drafting(load_decoder(Path(decoder), renderer.pipeline, renderer.device))


def _refuse_parts(**parts: str) -> None:
    """A fake base draws without any model."""
    for option, given in parts.items():
        if given:
            what = "autoencoder" if option == "vae" else option
            raise UsageError(f"a fake base has no {what}", where=f"--{option}", remedy="leave it out")
