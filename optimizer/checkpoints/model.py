"""Full models: what all of them have, however they lie on the disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from optimizer.adapters.families import PIPELINES

MERGED = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Parts of a pipeline that are merged; the others are those of the first model."""

Tick = Callable[[int, int], None]
"""Told how many tensors of how many are done."""

_FLOATS = {"F64", "F32", "F16", "BF16"}
_TIED = {"encoder.embed_tokens.weight": "shared.weight"}


def canonical(part: str, name: str) -> str:
    """One name for what versions of transformers call differently: a level of CLIP's names that some leave out, and T5's embeddings, which
    some files hold twice."""
    if not part.startswith("text_encoder"):
        return name
    inner = name.removeprefix("text_model.")
    return _TIED.get(inner, inner)


@dataclass(frozen=True)
class Entry:
    """A tensor of a model: its shape, and its number format as safetensors spells it."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def merges(self) -> bool:
        """Whether it holds weights, rather than counts or positions."""
        return self.dtype in _FLOATS


class Weights(Protocol):
    """All weights of a model, there one at a time: of one that lies on the disk, or of one that is a recipe as yet."""

    @property
    def names(self) -> Iterator[tuple[str, str]]:
        """Every (part, tensor), in a fixed order; names are those of diffusers folders, as ``canonical`` has them."""

    def read(self, part: str, name: str) -> Tensor:
        """A tensor in the number format in which it is, or would be, stored."""


class Model(ABC):
    """A full model on the disk.

    Attributes:
        place: the folder or file.
        name: the place's.
        kind: diffusers' class of the pipeline.
        predicts: what the denoiser was trained to predict, as diffusers' schedulers call it; empty where that is not said.
        parts: part → canonical name of a tensor → what it is, for the parts that are merged.
    """

    place: Path
    name: str
    kind: str
    predicts: str
    parts: Mapping[str, Mapping[str, Entry]]

    @property
    def names(self) -> Iterator[tuple[str, str]]:
        """Every (part, tensor), in a fixed order."""
        return ((part, name) for part, entries in self.parts.items() for name in sorted(entries))

    @property
    def family(self) -> str:
        """Of its adapters, ``sd1``, ``sdxl``, …; the first one where diffusers' class is that of several, which share their blocks."""
        return PIPELINES.get(self.kind, ("unknown",))[0]

    @abstractmethod
    def read(self, part: str, name: str) -> Tensor:
        """A tensor as it is stored."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256, 64 hex digits, of what tells this model from others, without reading gigabytes."""

    @property
    @abstractmethod
    def suffix(self) -> str:
        """How the names of such models end: empty for folders."""

    @abstractmethod
    def write(self, weights: Weights, place: Path, *, dtype: str = "", tick: Tick | None = None) -> None:
        """Write a complete model that has these weights and is this one in everything else, durably, holding a few tensors at a time.

        Args:
            weights: of the names that this model has.
            place: to be written; it must not exist, and has another name until it is complete.
            dtype: number format as safetensors spells it; empty keeps that of each of this model's tensors.
            tick: told how far it is.
        """
