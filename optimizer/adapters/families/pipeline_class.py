"""Pipeline classes: how diffusers draws with the models of a family, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Drawing:
    """Default sampling settings of a base.

    Attributes:
        steps: number of denoising steps.
        guidance: classifier-free guidance scale, or the guidance input of a guidance-distilled model.
    """

    steps: int
    guidance: float


FEW_STEPS = Drawing(steps=4, guidance=0.0)
"""Default sampling settings of models distilled to few steps."""


@dataclass(frozen=True, kw_only=True)
class FilePart:
    """A pipeline part in a single file.

    Attributes:
        conversion: conversion from the original state dict layout to that of diffusers: a name in
            ``optimizer.checkpoints.conversions.CONVERSIONS``, or ``module:function``.
        start: key prefix of the part in the file.
        whole: whether every tensor must be read, as for the denoiser; text encoders have tensors that diffusers does not read.
        projects: whether the part ends in a projection.
        identity: whether a projection that is missing in the file is the identity.
    """

    conversion: str
    start: str
    whole: bool = False
    projects: bool = False
    identity: bool = False


@dataclass(frozen=True, kw_only=True)
class PipelineClass:
    """A diffusers pipeline class, common to the families of base models that it draws with.

    Attributes:
        name: name of the class.
        title: display name of the models.
        denoiser: name of the denoiser component: ``unet`` or ``transformer``.
        denoiser_class: diffusers class of the denoiser.
        drawing: default sampling settings of regular models.
        distilled: default sampling settings of models distilled to few steps.
        encoding: text encoding: a name in ``optimizer.rendering.text.encodings.ENCODINGS``, or ``module:NAME`` of an ``Encoding``;
            empty if bases of this class are not drawn with.
        parts: required components other than the denoiser.
        optional: components that a base may lack, and that a single file is loaded without.
        left_out: constructor arguments that leave out components and checks not needed for drawing.
        clip_layer: CLIP layer whose states are used, counted from the last, which is 1; 0 if it cannot be chosen.
        negates: whether the pipeline takes a negative prompt.
        packed: whether latents are packed into tokens of 2 × 2 entries.
        half: 16-bit number format that the activations do not overflow.
        upcasts: whether the autoencoder decodes in fp32 if its configuration forces it and the weights are fp16.
        chunked: whether the denoiser uses CLIP's state of every token, so that CLIP has to encode the whole text.
        t5_tokenizer: component name of T5's tokenizer; empty without T5.
        t5_length: maximum number of T5 tokens, end token included: the default of the diffusers pipeline.
        file_parts: part → possible locations in a single file; empty if single files are not read.
    """

    name: str
    title: str
    denoiser: str
    denoiser_class: str
    drawing: Drawing
    distilled: Drawing = FEW_STEPS
    encoding: str = ""
    parts: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    left_out: Mapping[str, bool | None] = field(default_factory=dict)
    clip_layer: int = 0
    negates: bool = True
    packed: bool = False
    half: Literal["fp16", "bf16"] = "fp16"
    upcasts: bool = False
    chunked: bool = True
    t5_tokenizer: str = ""
    t5_length: int = 0
    file_parts: Mapping[str, tuple[FilePart, ...]] = field(default_factory=dict)


ONE_ENCODER = ("vae", "text_encoder", "tokenizer", "scheduler")
"""Components of a pipeline with one text encoder, besides the denoiser."""

TWO_ENCODERS = (*ONE_ENCODER, "text_encoder_2", "tokenizer_2")
"""Components of a pipeline with two text encoders, besides the denoiser."""
