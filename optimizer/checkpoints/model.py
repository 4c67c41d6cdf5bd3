"""Full models: the common interface of models in folders and in single files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from optimizer.adapters.families import families_of
from optimizer.adapters.files.dtypes import FLOATS

MERGED = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Pipeline parts that are merged; all other parts are taken from the first model."""

Tick = Callable[[int, int], None]
"""Progress callback, called with the number of finished tensors and the total."""

_TIED = {"encoder.embed_tokens.weight": "shared.weight"}


def canonical(part: str, name: str) -> str:
    """Returns the canonical name of a tensor, which is independent of the version of transformers.

    Removes the ``text_model.`` level of CLIP's names, which some versions omit, and maps T5's tied embeddings, which some files store
    twice, to one name.
    """
    if not part.startswith("text_encoder"):
        return name
    inner = name.removeprefix("text_model.")
    return _TIED.get(inner, inner)


@dataclass(frozen=True)
class StoredTensor:
    """Shape and safetensors dtype of a tensor of a model."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def merges(self) -> bool:
        """Whether the tensor holds weights, rather than counts or positions."""
        return self.dtype in FLOATS


class Weights(Protocol):
    """All weights of a model, read one at a time: of a model on disk, or of a merge that is computed from a recipe."""

    @property
    def names(self) -> Iterator[tuple[str, str]]:
        """Every (part, canonical tensor name), in a fixed order; names are those of diffusers folders, mapped by ``canonical``."""

    def read(self, part: str, name: str) -> Tensor:
        """Returns a tensor in the dtype in which it is, or would be, stored."""


class Model(ABC):
    """A full model on disk.

    Attributes:
        place: path of the folder or file.
        name: name of the folder or file.
        kind: diffusers pipeline class.
        predicts: prediction type of the denoiser, in the terms of diffusers' schedulers; empty if it is not stated.
        parts: part → canonical tensor name → shape and dtype, for the merged parts.
    """

    place: Path
    name: str
    kind: str
    predicts: str
    parts: Mapping[str, Mapping[str, StoredTensor]]

    @property
    def names(self) -> Iterator[tuple[str, str]]:
        """Every (part, canonical tensor name), in a fixed order."""
        return ((part, name) for part, entries in self.parts.items() for name in sorted(entries))

    @property
    def family(self) -> str:
        """Family of its adapters, ``sd1``, ``sdxl``, …; the first one if several families share the pipeline class and its blocks."""
        return next((family.name for family in families_of(self.kind)), "unknown")

    @abstractmethod
    def read(self, part: str, name: str) -> Tensor:
        """Returns a tensor as it is stored."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256, 64 hex digits, over samples of the model's files, which identify the model without reading them completely."""

    @property
    @abstractmethod
    def suffix(self) -> str:
        """File name suffix of the model format: empty for folders."""

    @abstractmethod
    def write(self, weights: Weights, place: Path, *, dtype: str = "", tick: Tick | None = None) -> None:
        """Writes a complete model with these weights; everything else is copied from this model.

        The model is written durably, with a few tensors in memory at a time.

        Args:
            weights: weights with the tensor names of this model.
            place: path to write; it must not exist, and has a temporary name until it is complete.
            dtype: safetensors dtype of the weights; empty keeps the dtype of each tensor of this model.
            tick: progress callback.
        """
