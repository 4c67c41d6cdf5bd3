"""Describes a base model family by one record of tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class Family:
    """A base model family, within which adapters are compatible.

    Attributes:
        name: identifier, ``sd1``, ``sdxl``, …
        title: human-readable name.
        denoiser: the denoiser part of the pipeline: ``unet`` or ``transformer``.
        modules: templates of the denoiser's linear and convolution modules, in diffusers names.
        native: module template in the original code → its diffusers modules. ComfyUI's files use these names, and kohya's files do
            if ``kohya_native``.
        foreign: further module template → its diffusers modules, for names that are read but never written.
        text_encoders: text encoders, in the pipeline's order.
        kohya_native: whether sd-scripts names the denoiser's modules as the original code does.
        signs: weight shapes that identify the family.
        runs: block sequences of a transformer; empty for U-Nets, which have their own block names.
        versions: prefixes of ``ss_base_model_version`` in trained files; the first one is written.
        architecture: ModelSpec's architecture name, which is written.
        architectures: prefixes of ModelSpec's architecture name, which are recognised.
        implementation: ModelSpec's implementation: where the original code is published.
        network: sd-scripts' network module for LoRAs of this family.
        resolution: resolution of the base model's training images in pixels, in ModelSpec's format.
    """

    name: str
    title: str
    denoiser: str
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
    foreign: Mapping[str, Native] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Pipeline part → templates of its modules."""
        return {self.denoiser: self.modules} | {encoder.part: encoder.modules for encoder in self.text_encoders}


def sign(path: str, columns: set[int], what: str) -> Sign:
    """Returns a sign from a path pattern in which ``#`` matches a number and ``*`` any text."""
    return Sign(re.compile(path.replace(".", r"\.").replace("#", r"\d+").replace("*", ".+"), re.ASCII), frozenset(columns), what)
