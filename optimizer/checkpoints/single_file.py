"""Full models in single files, the checkpoint format of A1111 and ComfyUI."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from optimizer.adapters.families import MODEL_TYPES
from optimizer.adapters.files.digest import digest_file
from optimizer.checkpoints.conversions import PROJECTION
from optimizer.checkpoints.header import CheckpointHeader, read_checkpoint_header
from optimizer.checkpoints.kinds import SUPPORTED, checkpoint_kind
from optimizer.checkpoints.model import Model, StoredTensor, Tick, Weights
from optimizer.checkpoints.original_layout import FileLayout, Piece, original_layout
from optimizer.checkpoints.prediction_type import NOISE, stated_noise
from optimizer.checkpoints.row_tracers import StoredRows
from optimizer.checkpoints.streaming import write_streamed
from optimizer.errors import BaseModelError

_CHOOSE = f"give a checkpoint of {SUPPORTED}, or a diffusers folder"
_PLAIN = "use the fp16, bf16 or fp32 version of it"
# Metadata that stay valid for other weights in this layout, unlike hashes, training and earlier merges.
_SPEC = ("sai_model_spec", "architecture", "implementation", "prediction_type", "resolution", "encoder_layer", "timestep_range", "license")
_TITLE = "modelspec.title"
_KEPT = {"format", _TITLE, *(f"modelspec.{key}" for key in _SPEC)}


class Checkpoint(Model):
    """A full model in a single file, which holds at least the denoiser.

    Args:
        file: safetensors file in the layout of the model's original code.

    Raises:
        BaseModelError: the file is not of a known family, is incomplete, or has an unknown layout.
    """

    suffix = ".safetensors"

    def __init__(self, file: str | Path) -> None:
        self.place = Path(file)
        self.name = self.place.stem
        self._header = read_checkpoint_header(self.place, remedy=_PLAIN)
        model_type = checkpoint_kind(self.place, self._header, _CHOOSE)
        self.kind = MODEL_TYPES[model_type].pipeline.name
        self.predicts = _predicts(self.place, self._header, model_type)
        self._layout = _file_layout(self.place, self.kind, self._header)
        self._file: Any = safe_open(self.place, framework="pt")
        self.parts = {part: self._entries(part, stored) for part, stored in self._layout.stored.items()}

    def read(self, part: str, name: str) -> Tensor:
        """Returns a tensor in diffusers' layout and in its stored dtype; only its own rows are read from the file."""
        stored = self._layout.stored[part].get(name)
        if stored is None:
            return self._identity(part)
        if stored.transposed:
            return self._tensor(stored.tensor).T.contiguous()
        if stored.shape == self._shape(stored.tensor) and len(stored.runs) == 1:
            return self._tensor(stored.tensor)
        rows = self._file.get_slice(stored.tensor)
        return torch.cat([rows[first : first + count] for first, count in stored.runs])

    @cached_property
    def digest(self) -> str:
        """SHA-256, 64 hex digits, over samples of the file (``digest_file``)."""
        found = hashlib.sha256(self.kind.encode())
        digest_file(found, self.place)
        return found.hexdigest()

    def write(self, weights: Weights, place: Path, *, dtype: str = "", tick: Tick | None = None) -> None:
        """Writes the model as in ``Model.write``, to a file with the keys of this file; tensors that are not merged are copied unchanged.

        Raises:
            BaseModelError: the weights have a projection other than the identity, which the file format cannot store.
        """
        self._check_identities(weights)
        names, said = _order(self.place)
        shapes = {
            name: (self._shape(name), dtype if dtype and name in self._layout.pieces else self._header.formats[name]) for name in names
        }

        def tensors() -> Iterator[Tensor]:
            for done, name in enumerate(names, start=1):
                yield self._compose(name, weights)
                if tick:
                    tick(done, len(names))

        metadata = {key: place.stem if key == _TITLE else text for key, text in said.items() if key in _KEPT}
        write_streamed(place, shapes, tensors(), metadata)

    def _compose(self, tensor: str, weights: Weights) -> Tensor:
        """Returns a tensor of the file, assembled from the pipeline tensors that are stored in it."""
        pieces = self._layout.pieces.get(tensor, ())
        if not pieces:
            return self._tensor(tensor)
        whole, made = self._shape(tensor), None
        for piece in pieces:
            found = _as_in_file(piece, weights.read(piece.part, piece.name))
            if tuple(found.shape) == whole and len(piece.stored.runs) == 1:
                return found
            made = torch.empty(whole, dtype=found.dtype, device=found.device) if made is None else made
            at = 0
            for first, count in piece.stored.runs:
                made[first : first + count] = found[at : at + count]
                at += count
        assert made is not None
        return made

    def _entries(self, part: str, stored: Mapping[str, StoredRows]) -> dict[str, StoredTensor]:
        entries = {name: StoredTensor(stored.shape, self._header.formats[stored.tensor]) for name, stored in stored.items()}
        if width := self._layout.identities.get(part):
            entries[PROJECTION] = StoredTensor((width, width), next(iter(entries.values())).dtype)
        return entries

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._header.tensors[name].shape)

    def _tensor(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def _identity(self, part: str) -> Tensor:
        like = next(iter(self._layout.stored[part].values())).tensor
        return torch.eye(self._layout.identities[part], dtype=self._tensor(like).dtype)

    def _check_identities(self, weights: Weights) -> None:
        for part, width in self._layout.identities.items():
            if not torch.equal(weights.read(part, PROJECTION).cpu().float(), torch.eye(width)):
                problem = f"{part}.{PROJECTION} would not be the identity, and such files have no place for it"
                raise BaseModelError(problem, where=self.place, remedy="name a model first that has one")


def _as_in_file(piece: Piece, tensor: Tensor) -> Tensor:
    return tensor.T if piece.stored.transposed else tensor


def _predicts(file: Path, header: CheckpointHeader, model_type: str) -> str:
    """Returns the prediction type; empty for flow-matching models, noise for U-Nets if the file does not state it."""
    return stated_noise(file, header, model_type).prediction or NOISE if MODEL_TYPES[model_type].denoiser == "unet" else ""


def _file_layout(file: Path, kind: str, header: CheckpointHeader) -> FileLayout:
    try:
        return original_layout(kind, {name: tuple(tensor.shape) for name, tensor in header.tensors.items()})
    except ValueError as error:
        remedy = "fetch it again, or convert it to a diffusers folder if it is laid out in a way of its own"
        raise BaseModelError(f"this file is not understood: {error}", where=file, remedy=remedy) from error


def _order(file: Path) -> tuple[list[str], dict[str, str]]:
    """Returns the keys of a file in storage order and its metadata in header order, which the safetensors library does not keep."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    said: dict[str, str] = header.pop("__metadata__", None) or {}
    return sorted(header, key=lambda name: tuple(header[name]["data_offsets"])), said
