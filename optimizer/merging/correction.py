"""Correction: further factors of no source, in the modules that read text, which a router can use like those of the sources.

A router writes into what the sources' ``up`` span, and reads what their ``down`` happen to read. A source that changes the denoiser alone
can be switched by its trigger only where the denoiser reads text, and only by the few directions of text that ``down`` reads there.
Factors in random directions give the router more to read and to write with, and in CLIP text encoders they stand also where no source
changes anything: there every word that follows a trigger can be told of it. The factors are not stored: path and shape of a module
determine them bit by bit, on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.adapters.families import FAMILIES
from optimizer.adapters.shapes import bare
from optimizer.merging.common_base import common_base

NAME = "correction"
"""Name of the adapter."""

Matrices = Mapping[str, tuple[int, int]]
"""Canonical module path → numbers of rows and columns of its weight."""

NO_TEXTS: Matrices = {}
"""No module beside those that the sources change."""

_TEXT_ENCODER = "text_encoder"
_CLIP, _T5 = ".text_model.encoder.", ".encoder.block."


def correctable(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """Returns the modules of a base that a correction may change without a source that does: the linear ones of CLIP text encoders.

    There are none beside T5: then CLIP tells the denoiser little of single words, and T5 would have to stay on the device in training.

    Args:
        shapes: canonical module path → shape of its weight, of all modules of the base.
    """
    texts = [path for path in shapes if path.startswith(_TEXT_ENCODER)]
    if any(_T5 in path for path in texts):
        return {}
    return {path: (shapes[path][0], shapes[path][1]) for path in texts if _CLIP in path}


def with_correction(adapters: Sequence[Adapter], rank: int, texts: Matrices = NO_TEXTS) -> tuple[Adapter, ...]:
    """Returns the sources and, for a rank above 0, the correction as the last one: what the router of a corrected merge lies between."""
    return (*adapters, correction_of(adapters, rank, texts)) if rank else tuple(adapters)


def correction_of(adapters: Sequence[Adapter], rank: int, texts: Matrices = NO_TEXTS) -> Adapter:
    """Returns the correction of some sources; without ``texts`` it has no modules if no source changes one that reads text.

    The entries of ``up``, (out, r), are ±1/√out, those of ``down``, (r, in), ±1/√in, in fp32, so that every column of ``up`` and every
    row of ``down`` has length 1. The signs are the bits of SHAKE-256 of path, side and shape.

    Args:
        adapters: sources.
        rank: rank r in every module, ≥ 1; at most the number of rows and of columns of its weight.
        texts: further modules that it changes, as ``correctable`` tells them or as ``Router.texts`` does.

    Raises:
        RecipeError: the sources were made for different base models.
    """
    base = common_base(adapters)
    shapes = {path: bare(factors.shape) for adapter in adapters for path, factors in adapter.modules.items() if _reads_text(path, base)}
    matrices = {path: shape for path, shape in shapes.items() if len(shape) == 2} | dict(texts)
    modules = {path: _factors(path, out, into, rank) for path, (out, into) in sorted(matrices.items())}
    return Adapter(name=NAME, modules=modules, base=base)


def _reads_text(path: str, base: str) -> bool:
    """Returns whether a module reads text alone; for an unknown base, whether it does in one of the families."""
    part = path.partition(".")[0]
    if part.startswith(_TEXT_ENCODER):
        return True
    families = [FAMILIES[base]] if base in FAMILIES else list(FAMILIES.values())
    return any(path.endswith(f".{reader}") for family in families if family.denoiser == part for reader in family.text_readers)


def _factors(path: str, out: int, into: int, most: int) -> Factors:
    """Returns the factors of a module of shape (out, into), of rank ``most`` or of the greatest that the shape allows."""
    rank = min(most, out, into)
    up = _signs(f"{path} up {out} {into} {rank}", out, rank) * _reciprocal_root(out)
    down = _signs(f"{path} down {out} {into} {rank}", rank, into) * _reciprocal_root(into)
    return Factors(up, down, float(rank), (out, into))


def _signs(seed: str, rows: int, columns: int) -> Tensor:
    """Returns a matrix of −1 and 1, (rows, columns), fp32, from the bits of the hash of a text."""
    count = rows * columns
    data = np.frombuffer(hashlib.shake_256(seed.encode()).digest(-(-count // 8)), dtype=np.uint8)
    bits = np.unpackbits(data, count=count, bitorder="big").reshape(rows, columns)
    return torch.from_numpy(2 * bits.astype(np.float32) - 1)


def _reciprocal_root(size: int) -> float:
    """Returns 1/√size as an fp32 number; root and quotient are rounded correctly on every machine."""
    return float(np.float32(1 / np.sqrt(np.float64(size))))
