"""The original layout: maps every tensor of a diffusers pipeline to rows of a tensor of a single file.

The mapping is derived by running diffusers' own conversions on tracers, so it agrees with ``from_single_file``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optimizer.adapters.families import PIPELINE_CLASSES, FilePart
from optimizer.checkpoints.conversions import PROJECTION, belongs_to, conversion_named, part_keys
from optimizer.checkpoints.model import canonical
from optimizer.checkpoints.row_tracers import StoredRows, Tracers
from optimizer.text import first_sentence

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Piece:
    """A pipeline tensor that is stored in a tensor of a file: its part, canonical name and place in the file."""

    part: str
    name: str
    stored: StoredRows


@dataclass(frozen=True)
class FileLayout:
    """The layout of a file.

    Attributes:
        stored: part → canonical tensor name → rows of the file's tensor that hold it.
        pieces: key of the file → its pipeline tensors, which together cover every row once.
        identities: part → width of its projection, which the file lacks and diffusers sets to the identity.
    """

    stored: Mapping[str, Mapping[str, StoredRows]]
    pieces: Mapping[str, Sequence[Piece]]
    identities: Mapping[str, int]


def original_layout(pipeline: str, shapes: Shapes) -> FileLayout:
    """Returns the layout of a file.

    Args:
        pipeline: diffusers pipeline class.
        shapes: key → shape, for all tensors of the file.

    Raises:
        ValueError: a part cannot be converted completely; the message states what is wrong.
    """
    stored: dict[str, dict[str, StoredRows]] = {}
    pieces: dict[str, list[Piece]] = {}
    identities: dict[str, int] = {}
    for part, file_part in ((part, file_part) for part, ways in PIPELINE_CLASSES[pipeline].file_parts.items() for file_part in ways):
        if names := part_keys(file_part, shapes):
            found = _pieces(part, file_part, {name: shapes[name] for name in names})
            _check_whole(part, file_part, names, found)
            stored.setdefault(part, {}).update({piece.name: piece.stored for piece in found})
            for piece in found:
                pieces.setdefault(piece.stored.tensor, []).append(piece)
            if file_part.identity and PROJECTION not in stored[part]:
                identities[part] = stored[part]["embeddings.token_embedding.weight"].shape[1]
    for tensor, each in pieces.items():
        _check_rows(tensor, shapes[tensor], each)
    return FileLayout(stored, pieces, identities)


def _pieces(part: str, file_part: FilePart, shapes: Shapes) -> list[Piece]:
    """Returns the pipeline tensors that diffusers' conversion makes from the tensors of a part."""
    tracers = Tracers(shapes)
    try:
        made = conversion_named(file_part.conversion)(dict(tracers.tensors), file_part.start)
    except KeyError as error:
        raise ValueError(f"{part} lacks {error.args[0]}") from error
    except Exception as error:  # the conversions assume numbers of blocks, and the width of FLUX.1
        raise ValueError(f"{part} cannot be converted: {first_sentence(error)}") from error
    found = []
    for name, tensor in made.items():
        inner = canonical(part, name)
        if belongs_to(file_part, inner):
            if tensor is None:
                raise ValueError(f"{part} lacks what {name} is made of")
            try:
                found.append(Piece(part, inner, tracers.rows_of(tensor)))
            except ValueError as error:
                raise ValueError(f"{part}.{name}: {error}") from error
    return found


def _check_whole(part: str, file_part: FilePart, names: Sequence[str], found: Sequence[Piece]) -> None:
    """Raises a ValueError unless every tensor of a denoiser, or at least one of a text encoder, is read."""
    used = {piece.stored.tensor for piece in found}
    if unknown := [name for name in names if name not in used] if file_part.whole or not used else []:
        raise ValueError(f"{len(unknown)} tensors of {part} are not understood, the first is {unknown[0]}")


def _check_rows(tensor: str, shape: tuple[int, ...], pieces: Sequence[Piece]) -> None:
    runs = sorted(run for piece in pieces for run in piece.stored.runs)
    ends = [0, *(first + count for first, count in runs)]
    if [first for first, _ in runs] != ends[:-1] or ends[-1] != (shape[0] if shape else 1):
        raise ValueError(f"not every row of {tensor} is read once")
