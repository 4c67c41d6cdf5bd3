"""Families of base models: pipeline components, text encoding, and default sampling settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from optimizer.adapters import Adapter
from optimizer.adapters.families import FAMILIES as TITLES
from optimizer.adapters.families import PIPELINES
from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering.settings import RenderSettings
from optimizer.rendering.text.prompt_weights import Reading
from optimizer.rendering.text.weighted_states import FLUX_T5_LENGTH, SD3_T5_LENGTH, weighed_flux, weighed_sd, weighed_sd3, weighed_xl

TextStates = dict[str, Tensor]
"""Text-encoder states passed to a pipeline in place of a prompt, by argument name, one row per text."""

Encode = Callable[[Any, Sequence[str], torch.device, int | None], TextStates]
"""Encodes texts. Arguments: pipeline, texts, device, and the number of last CLIP layers that diffusers skips."""

Weigh = Callable[[Any, Reading, torch.device, int | None], TextStates]
"""Encodes one text that has weights or exceeds CLIP's context. Arguments: pipeline, parsed text, device, number of layers to skip."""


@dataclass(frozen=True)
class Drawing:
    """Default sampling settings of a base.

    Attributes:
        steps: number of denoising steps.
        guidance: classifier-free guidance scale, or the guidance input of a guidance-distilled model.
    """

    steps: int
    guidance: float


@dataclass(frozen=True)
class Family:
    """Family of base models that share a pipeline class.

    Attributes:
        name: display name.
        bases: base names of compatible adapters.
        denoiser: name of the denoiser component.
        drawing: default sampling settings of regular models.
        distilled: default sampling settings of models distilled to few steps.
        parts: required components other than the denoiser.
        encode: encodes texts into text-encoder states.
        weigh: encodes one text that has weights or exceeds CLIP's context.
        layer: CLIP layer whose states are used, counted from the last, which is 1; 0 if it cannot be chosen.
        negates: whether the pipeline takes a negative prompt.
        packed: whether latents are packed into tokens of 2 × 2 entries.
        half: 16-bit dtype that the activations do not overflow.
        chunked: whether the denoiser uses CLIP's state of every token, so that CLIP has to encode the whole text.
        t5: component name of T5's tokenizer, and maximum number of T5 tokens.
    """

    name: str
    bases: tuple[str, ...]
    denoiser: str
    drawing: Drawing
    distilled: Drawing
    parts: tuple[str, ...]
    encode: Encode
    weigh: Weigh
    layer: int
    negates: bool = True
    packed: bool = False
    half: torch.dtype = torch.float16
    chunked: bool = True
    t5: tuple[str, int] = ("", 0)


def _states(pipeline: Any, texts: Sequence[str], device: torch.device, skip: int | None) -> TextStates:
    encoder = pipeline.text_encoder
    if skip and not hasattr(encoder, "text_model"):
        encoder.__dict__["text_model"] = encoder  # diffusers 0.42 takes the final norm from text_model, which transformers 5 lacks
    states, _ = pipeline.encode_prompt(list(texts), device, 1, do_classifier_free_guidance=False, clip_skip=skip)
    return {"prompt_embeds": states}


def _states_xl(pipeline: Any, texts: Sequence[str], device: torch.device, skip: int | None) -> TextStates:
    states, _, pooled, _ = pipeline.encode_prompt(list(texts), device=device, do_classifier_free_guidance=False, clip_skip=skip)
    return {"prompt_embeds": states, "pooled_prompt_embeds": pooled}


def _states_sd3(pipeline: Any, texts: Sequence[str], device: torch.device, skip: int | None) -> TextStates:
    states, _, pooled, _ = pipeline.encode_prompt(list(texts), None, None, device=device, do_classifier_free_guidance=False, clip_skip=skip)
    return {"prompt_embeds": states, "pooled_prompt_embeds": pooled}


def _states_flux(pipeline: Any, texts: Sequence[str], device: torch.device, skip: int | None) -> TextStates:
    longest = min(FLUX_T5_LENGTH, pipeline.tokenizer_2.model_max_length)
    states, pooled, _ = pipeline.encode_prompt(list(texts), device=device, max_sequence_length=longest)
    return {"prompt_embeds": states, "pooled_prompt_embeds": pooled}


_ONE = ("vae", "text_encoder", "tokenizer", "scheduler")
_TWO = (*_ONE, "text_encoder_2", "tokenizer_2")
_FEW = Drawing(4, 0.0)
FAMILIES = {
    "StableDiffusionPipeline": Family(
        "SD 1.x and 2.x", PIPELINES["StableDiffusionPipeline"], "unet", Drawing(20, 7.0), _FEW, _ONE, _states, weighed_sd, 1
    ),
    "StableDiffusionXLPipeline": Family(
        "SDXL", PIPELINES["StableDiffusionXLPipeline"], "unet", Drawing(25, 6.0), _FEW, _TWO, _states_xl, weighed_xl, 2
    ),
    "StableDiffusion3Pipeline": Family(
        "SD 3.x",
        PIPELINES["StableDiffusion3Pipeline"],
        "transformer",
        Drawing(28, 4.5),
        _FEW,
        _TWO,
        _states_sd3,
        weighed_sd3,
        2,
        half=torch.bfloat16,
        t5=("tokenizer_3", SD3_T5_LENGTH),
    ),
    "FluxPipeline": Family(
        "FLUX.1",
        PIPELINES["FluxPipeline"],
        "transformer",
        Drawing(28, 3.5),
        _FEW,
        _TWO,
        _states_flux,
        weighed_flux,
        0,
        negates=False,
        packed=True,
        half=torch.bfloat16,
        chunked=False,
        t5=("tokenizer_2", FLUX_T5_LENGTH),
    ),
}
"""Families by class name of the diffusers pipeline."""


def check_family(family: Family, adapters: Iterable[Adapter]) -> None:
    """Raises BaseModelError if an adapter is for another family of bases."""
    for adapter in adapters:
        if adapter.base not in ("unknown", *family.bases):
            problem = f"is for {TITLES[adapter.base].title}, the base model is of {family.name}"
            raise BaseModelError(problem, where=adapter.name, remedy="choose sources and a base of one family")


def check_settings(family: Family, settings: RenderSettings) -> None:
    """Raises UsageError if a family does not support the settings, as far as known before a base is loaded."""
    if settings.negative and not family.negates:
        raise UsageError(f"{family.name} takes no negative prompt", where="--negative", remedy="leave it out")
    if settings.clip_skip is None:
        return
    if not family.layer:
        raise UsageError(f"{family.name} has no choice of CLIP's layers", where="--clip-skip", remedy="leave it out")
    if settings.clip_skip < family.layer:
        problem = f"{family.name} reads CLIP's layer {family.layer} from the end, or an earlier one"
        raise UsageError(problem, where="--clip-skip", remedy=f"give {family.layer} or more")


def family_of_pipeline(pipeline: DiffusionPipeline) -> Family:
    """Returns the family of a loaded pipeline."""
    return FAMILIES[type(pipeline).__name__]


def models_of(pipeline: DiffusionPipeline) -> dict[str, nn.Module]:
    """Returns the components of a pipeline that have weights, by name."""
    return {part: model for part, model in pipeline.components.items() if isinstance(model, nn.Module)}


def drawing_of(pipeline: DiffusionPipeline) -> Drawing:
    """Returns the default sampling settings of a loaded pipeline.

    FLUX.1 schnell is recognised by its missing guidance input, and the turbo models of Stable Diffusion by ``trailing`` timestep spacing.
    Models trained to zero terminal SNR also use ``trailing`` spacing but need many steps; they are recognised by a rescaled noise schedule
    or by velocity prediction.
    """
    family, parts = family_of_pipeline(pipeline), pipeline.components
    if family.packed:
        return family.drawing if parts[family.denoiser].config.guidance_embeds else family.distilled
    schedule = parts["scheduler"].config
    whole = schedule.get("rescale_betas_zero_snr") or schedule.get("prediction_type") == "v_prediction"
    return family.distilled if schedule.get("timestep_spacing") == "trailing" and not whole else family.drawing
