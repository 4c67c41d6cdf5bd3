"""Text encodings: how each kind of pipeline turns texts into text-encoder states, by the names in the records of the families."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from optimizer.rendering.pipeline_class import pipeline_class_of
from optimizer.rendering.text.prompt_weights import WeightedPrompt
from optimizer.rendering.text.states import TextStates
from optimizer.rendering.text.weighted_states import weighted_flux_states, weighted_sd3_states, weighted_sd_states, weighted_xl_states

Encode = Callable[[Any, Sequence[str], torch.device, int | None], TextStates]
"""Encodes texts. Arguments: pipeline, texts, device, and the number of last CLIP layers that diffusers skips."""

EncodeWeighted = Callable[[Any, WeightedPrompt, torch.device, int | None], TextStates]
"""Encodes one text that has weights or exceeds CLIP's context. Arguments: pipeline, parsed text, device, number of layers to skip."""


@dataclass(frozen=True)
class Encoding:
    """Text encoding of a kind of pipeline.

    Attributes:
        plain: encodes texts without weights that fit into CLIP's context.
        weighted: encodes one text that has weights or exceeds CLIP's context.
        inputs: name in the text states → argument of the denoiser that gets them, ``argument.key`` for an entry of a mapping.
    """

    plain: Encode
    weighted: EncodeWeighted
    inputs: Mapping[str, str]


def _sd_states(pipeline: Any, texts: Sequence[str], device: torch.device, skip: int | None) -> TextStates:
    encoder = pipeline.text_encoder
    if skip and not hasattr(encoder, "text_model"):
        encoder.__dict__["text_model"] = encoder  # diffusers 0.42 takes the final norm from text_model, which transformers 5 lacks
    states, _ = pipeline.encode_prompt(list(texts), device, 1, do_classifier_free_guidance=False, clip_skip=skip)
    return {"prompt_embeds": states}


def _xl_states(pipeline: Any, texts: Sequence[str], device: torch.device, skip: int | None) -> TextStates:
    states, _, pooled, _ = pipeline.encode_prompt(list(texts), device=device, do_classifier_free_guidance=False, clip_skip=skip)
    return {"prompt_embeds": states, "pooled_prompt_embeds": pooled}


def _sd3_states(pipeline: Any, texts: Sequence[str], device: torch.device, skip: int | None) -> TextStates:
    states, _, pooled, _ = pipeline.encode_prompt(list(texts), None, None, device=device, do_classifier_free_guidance=False, clip_skip=skip)
    return {"prompt_embeds": states, "pooled_prompt_embeds": pooled}


def _flux_states(pipeline: Any, texts: Sequence[str], device: torch.device, skip: int | None) -> TextStates:
    longest = min(pipeline_class_of(pipeline).t5_length, pipeline.tokenizer_2.model_max_length)
    states, pooled, _ = pipeline.encode_prompt(list(texts), device=device, max_sequence_length=longest)
    return {"prompt_embeds": states, "pooled_prompt_embeds": pooled}


_STATES = {"prompt_embeds": "encoder_hidden_states"}

ENCODINGS = {
    "sd": Encoding(_sd_states, weighted_sd_states, _STATES),
    "sdxl": Encoding(_xl_states, weighted_xl_states, {**_STATES, "pooled_prompt_embeds": "added_cond_kwargs.text_embeds"}),
    "sd3": Encoding(_sd3_states, weighted_sd3_states, {**_STATES, "pooled_prompt_embeds": "pooled_projections"}),
    "flux": Encoding(_flux_states, weighted_flux_states, {**_STATES, "pooled_prompt_embeds": "pooled_projections"}),
}
"""Name in ``PipelineClass.encoding`` → text encoding."""


def encoding_named(name: str) -> Encoding:
    """Returns the text encoding that a family's record names, imported if the name is ``module:NAME``."""
    if name in ENCODINGS:
        return ENCODINGS[name]
    module, _, attribute = name.partition(":")
    found: Encoding = getattr(import_module(module), attribute)
    return found
