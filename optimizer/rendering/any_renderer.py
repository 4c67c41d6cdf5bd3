"""What the search needs of a renderer, and the one place where a base is turned into one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from optimizer.adapters import Adapter
from optimizer.errors import UsageError
from optimizer.merging import DTYPES
from optimizer.rendering.fake import FakeRenderer
from optimizer.rendering.fake_spec import FakeSpec, is_fake
from optimizer.rendering.memory import Note
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
    def picture_size(self) -> tuple[int, int]:
        """(height, width) of a picture, in pixels."""

    def fitted(self, adapter: Adapter) -> Adapter:
        """A source in the shapes of the base's weights; raises BaseModelError where it does not fit."""

    def special(self, prompts: Sequence[Prompt]) -> bool:
        """Whether a text has weights or is longer than CLIP reads at once; raises UsageError where one is longer than T5 reads."""

    def render(self, prompts: Sequence[Prompt], adapter: Adapter | None = None, *, tick: Callable[[int], None] | None = None) -> Tensor:
        """Pictures, uint8, (n, 3, height, width), on the CPU; ``tick`` is called with the number of pictures finished so far.

        Raises:
            TrialError: a picture is not a number.
        """


def load_renderer(
    base: str, settings: RenderSettings, *, device: str = "auto", precision: str = "auto", vae: str = "", note: Note | None = None
) -> AnyRenderer:
    """The renderer of a base.

    Args:
        base: a diffusers pipeline directory of a known family, or ``fake:`` with its settings.
        settings: steps, guidance, batch size; what is not given is what is usual for the base.
        device: torch device; ``auto`` is cuda where there is one. A fake base computes on the CPU whatever is asked for.
        precision: ``fp32``, ``fp16`` or ``bf16`` for the base's weights; ``auto`` is fp16 on cuda, else fp32.
        vae: the folder of another autoencoder.
        note: is told, in one line, of what is done where memory runs out.

    Raises:
        BaseModelError: the base cannot be loaded.
        UsageError: the device is not there, or a fake base has no such setting or part.
    """
    if is_fake(base):
        if vae:
            raise UsageError("a fake base has no autoencoder", where="--vae", remedy="leave it out")
        return FakeRenderer(FakeSpec.of(base), settings)
    # Only here: diffusers takes seconds to import, which a fake base does not need.
    from optimizer.rendering.load import load_pipeline
    from optimizer.rendering.renderer import Renderer

    chosen = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    dtype = precision if precision != "auto" else "fp16" if chosen.startswith("cuda") else "fp32"
    return Renderer(load_pipeline(base, device=chosen, dtype=DTYPES[dtype], vae=vae), settings, note=note)
