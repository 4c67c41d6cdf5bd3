"""What is to be known of a family of base models, as one record of tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from optimizer.adapters.families.text_encoders import TextEncoder


@dataclass(frozen=True)
class Native:
    """A module of the model's original code.

    Attributes:
        modules: the templates of diffusers' modules for it; of several, the rows stand below each other in the original's weight.
        rows: how many rows each of them has there, in multiples of the weight's columns; empty where there is one.
        swapped: the original's weight has the two halves of its rows the other way round, where it has two: rows = 2 · columns.
            (Adaptive norms give shift and scale there, scale and shift in diffusers.)
    """

    modules: tuple[str, ...]
    rows: tuple[int, ...] = ()
    swapped: bool = False


@dataclass(frozen=True)
class Sign:
    """What tells a family by the shape of a weight.

    Attributes:
        path: pattern of canonical module paths.
        columns: the numbers of inputs of such a module, that no other family has.
        what: the same for people; the number follows.
    """

    path: re.Pattern[str]
    columns: frozenset[int]
    what: str


@dataclass(frozen=True)
class Run:
    """Blocks of one kind, one after another: ``JOINT_00``, ``JOINT_01``, … for ``transformer_blocks.#``."""

    name: str
    modules: str
    count: int


@dataclass(frozen=True)
class Family:
    """A family of base models whose adapters fit each other.

    Attributes:
        name: ``sd1``, ``sdxl``, …
        title: for people.
        denoiser: the pipeline's part that denoises: ``unet`` or ``transformer``.
        modules: templates of its linear and convolution modules, as diffusers names them.
        native: template in the model's original code → the same in diffusers. ComfyUI's files have these names, and kohya's where
            ``kohya_native``.
        foreign: further names that are read and never written, in the same form.
        text_encoders: in the pipeline's order.
        kohya_native: whether sd-scripts names the denoiser's modules as the original code does.
        signs: how shapes tell the family.
        runs: the blocks of a transformer; U-Nets have block names of their own.
        versions: beginnings of ``ss_base_model_version`` in the files of trainers; the first one is written.
        architecture: the one that ModelSpec gives.
        architectures: beginnings of such names.
        implementation: ModelSpec's; where the original code is published.
        network: sd-scripts' module for its LoRAs.
        resolution: of the pictures that the base was trained on, as ModelSpec writes it.
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
        """Part of the pipeline → the templates of its modules."""
        return {self.denoiser: self.modules} | {encoder.part: encoder.modules for encoder in self.text_encoders}


def sign(path: str, columns: set[int], what: str) -> Sign:
    """A sign whose pattern has ``#`` for a number."""
    return Sign(re.compile(path.replace(".", r"\.").replace("#", r"\d+").replace("*", ".+"), re.ASCII), frozenset(columns), what)
