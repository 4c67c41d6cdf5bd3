"""The original layout: which tensor of a diffusers pipeline is made of which rows of which tensor of a single file.

diffusers' own conversions say it, run once on tracers: what they do is what ``from_single_file`` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optimizer.checkpoints.conversions import PARTS, PROJECTION, Part
from optimizer.checkpoints.model import canonical
from optimizer.checkpoints.row_tracers import Origin, Tracers
from optimizer.text import first_sentence

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Piece:
    """A tensor of a pipeline that lies in a tensor of a file: its part, its canonical name, and where it lies."""

    part: str
    name: str
    origin: Origin


@dataclass(frozen=True)
class Layout:
    """How a file is laid out.

    Attributes:
        origins: part → canonical name of a tensor → where it lies in the file.
        pieces: tensor of the file → what it is made of; its rows are those of the pieces, each once.
        identities: part → width of its projection, which diffusers takes for the identity, for such files hold none.
    """

    origins: Mapping[str, Mapping[str, Origin]]
    pieces: Mapping[str, Sequence[Piece]]
    identities: Mapping[str, int]


def original_layout(pipeline: str, shapes: Shapes) -> Layout:
    """The layout of a file.

    Args:
        pipeline: diffusers' class.
        shapes: of all tensors of the file, by name.

    Raises:
        ValueError: a part is not understood as a whole; the text says what of it.
    """
    origins: dict[str, dict[str, Origin]] = {}
    pieces: dict[str, list[Piece]] = {}
    identities: dict[str, int] = {}
    for part, place in ((part, place) for part, places in PARTS[pipeline].items() for place in places):
        if names := place.names(shapes):
            found = _pieces(part, place, {name: shapes[name] for name in names})
            _check_whole(part, place, names, found)
            origins.setdefault(part, {}).update({piece.name: piece.origin for piece in found})
            for piece in found:
                pieces.setdefault(piece.origin.tensor, []).append(piece)
            if place.identity and PROJECTION not in origins[part]:
                identities[part] = origins[part]["embeddings.token_embedding.weight"].shape[1]
    for tensor, each in pieces.items():
        _check_rows(tensor, shapes[tensor], each)
    return Layout(origins, pieces, identities)


def _pieces(part: str, place: Part, shapes: Shapes) -> list[Piece]:
    """What diffusers makes of the tensors of a part."""
    tracers = Tracers(shapes)
    try:
        made = place.convert(dict(tracers.tensors), place.start)
    except KeyError as error:
        raise ValueError(f"{part} lacks {error.args[0]}") from error
    except Exception as error:  # they take numbers of blocks, and of FLUX.1 its width, for granted
        raise ValueError(f"{part} cannot be converted: {first_sentence(error)}") from error
    found = []
    for name, tensor in made.items():
        inner = canonical(part, name)
        if place.reads(inner):
            if tensor is None:
                raise ValueError(f"{part} lacks what {name} is made of")
            try:
                found.append(Piece(part, inner, tracers.origin(tensor)))
            except ValueError as error:
                raise ValueError(f"{part}.{name}: {error}") from error
    return found


def _check_whole(part: str, place: Part, names: Sequence[str], found: Sequence[Piece]) -> None:
    """Of a denoiser every tensor is read, of a text encoder something."""
    used = {piece.origin.tensor for piece in found}
    if unknown := [name for name in names if name not in used] if place.whole or not used else []:
        raise ValueError(f"{len(unknown)} tensors of {part} are not understood, the first is {unknown[0]}")


def _check_rows(tensor: str, shape: tuple[int, ...], pieces: Sequence[Piece]) -> None:
    runs = sorted(run for piece in pieces for run in piece.origin.runs)
    ends = [0, *(first + count for first, count in runs)]
    if [first for first, _ in runs] != ends[:-1] or ends[-1] != (shape[0] if shape else 1):
        raise ValueError(f"not every row of {tensor} is read once")
