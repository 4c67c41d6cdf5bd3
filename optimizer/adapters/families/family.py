"""Describes a base model family by one record of tables: names, shapes, blocks, files and drawing all derive from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from optimizer.adapters.families.blueprint import Blueprint
from optimizer.adapters.families.pipeline_class import PipelineClass
from optimizer.adapters.families.text_encoders import TextEncoder


@dataclass(frozen=True)
class Native:
    """A module of the model's original code and its diffusers modules.

    Attributes:
        modules: templates of the diffusers modules; several are stacked by rows in the original weight.
        rows: number of rows per diffusers module, in multiples of the weight's columns; empty for one module.
        swapped: whether the two halves of the rows are swapped relative to diffusers, if rows = 2 · columns.
            (Adaptive norms have shift before scale in the original code, scale before shift in diffusers.)
    """

    modules: tuple[str, ...]
    rows: tuple[int, ...] = ()
    swapped: bool = False


@dataclass(frozen=True)
class Sign:
    """A weight shape that identifies a family.

    Attributes:
        path: pattern of canonical module paths.
        columns: numbers of inputs of the module that occur in no other family.
        what: human-readable description; the number of inputs is appended.
    """

    path: re.Pattern[str]
    columns: frozenset[int]
    what: str


@dataclass(frozen=True)
class Run:
    """A sequence of blocks of one kind: ``JOINT_00``, ``JOINT_01``, … for ``transformer_blocks.#``."""

    name: str
    modules: str
    count: int


@dataclass(frozen=True, kw_only=True)
class Family:
    """A base model family, within which adapters are compatible.

    Attributes:
        name: identifier, ``sd1``, ``sdxl``, …
        title: human-readable name.
        pipeline: diffusers pipeline class that draws with models of the family; families of one class share its record.
        modules: templates of the denoiser's linear and convolution modules, in diffusers names.
        native: module template in the original code → its diffusers modules. ComfyUI's files use these names, and kohya's files do
            if ``kohya_native``.
        foreign: further module template → its diffusers modules, for names that are read but never written.
        text_encoders: text encoders, in the pipeline's order.
        kohya_native: whether sd-scripts names the denoiser's modules as the original code does.
        text_readers: endings of the denoiser's modules that read nothing but the text: keys and values of the attention to it.
        convolutions: leaf names of modules that are 1 × 1 convolutions here, linear layers in other families.
        signs: weight shapes that identify the family.
        levels: number of resolution levels of a U-Net, which determine its blocks; 0 for a transformer.
        runs: block sequences of a transformer; empty for U-Nets.
        blueprints: diffusers model type of a single file → configuration of its models; empty if single files are not read.
        versions: prefixes of ``ss_base_model_version`` in trained files; the first one is written.
        v2: value of sd-scripts' ``ss_v2``.
        architecture: ModelSpec's architecture name, which is written.
        architectures: prefixes of ModelSpec's architecture name, which are recognised.
        implementation: ModelSpec's implementation: where the original code is published.
        network: sd-scripts' network module for LoRAs of this family.
        resolution: resolution of the base model's training images in pixels, in ModelSpec's format.
    """

    name: str
    title: str
    pipeline: PipelineClass
    modules: tuple[str, ...]
    native: Mapping[str, Native]
    text_encoders: tuple[TextEncoder, ...]
    signs: tuple[Sign, ...]
    versions: tuple[str, ...]
    architecture: str
    architectures: tuple[str, ...]
    implementation: str
    network: str = "networks.lora"
    resolution: str = "1024x1024"
    kohya_native: bool = True
    v2: bool = False
    text_readers: tuple[str, ...] = ()
    convolutions: tuple[str, ...] = ()
    foreign: Mapping[str, Native] = field(default_factory=dict)
    levels: int = 0
    runs: tuple[Run, ...] = ()
    blueprints: Mapping[str, Blueprint] = field(default_factory=dict)

    @property
    def denoiser(self) -> str:
        """Denoiser part of the pipeline: ``unet`` or ``transformer``."""
        return self.pipeline.denoiser

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Pipeline part → templates of its modules."""
        return {self.denoiser: self.modules} | {encoder.part: encoder.modules for encoder in self.text_encoders}


def sign(path: str, columns: set[int], what: str) -> Sign:
    """Returns a sign from a path pattern in which ``#`` matches a number and ``*`` any text."""
    return Sign(re.compile(path.replace(".", r"\.").replace("#", r"\d+").replace("*", ".+"), re.ASCII), frozenset(columns), what)
