"""Writes module paths as keys of a dialect, and fuses the modules that the dialect keeps in one weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from optimizer.adapters.factors import Factors
from optimizer.adapters.families import FAMILIES, Family, Native
from optimizer.adapters.fusing import fuse
from optimizer.adapters.names.grammar import Grammar, fill
from optimizer.adapters.names.paths import split_path

Dialect = Literal["kohya", "diffusers", "comfyui"]

Modules = Mapping[str, Factors]


class MissingKey(ValueError):
    """A dialect has no key for a module, or modules that it fuses into one weight have incompatible shapes."""


@dataclass(frozen=True)
class NamedWeight:
    """One weight of a file, with its key in a dialect.

    Attributes:
        part: pipeline part.
        name: key without the factor's suffix.
        factors: factors of the weight, fused from all of its modules.
    """

    part: str
    name: str
    factors: Factors


@dataclass(frozen=True)
class _Weight:
    part: str
    name: str
    record: Native
    paths: tuple[str, ...]


def named_weights(modules: Modules, base: str, dialect: Dialect) -> Iterator[NamedWeight]:
    """Yields every weight of a file in the dialect, in the order of the module paths.

    Args:
        modules: canonical path → factors.
        base: base model family; a U-Net of an unknown family is named as Stable Diffusion 1.x or XL.
        dialect: key naming convention of the file.

    Raises:
        MissingKey: the dialect has no key for a module, or fused modules have incompatible shapes.
    """
    family = None if dialect == "diffusers" else _family(modules, base)
    for weight in _weights(modules, family, dialect):
        try:
            factors = fuse(modules, weight.paths, weight.record.rows, weight.record.swapped)
        except ValueError as error:
            raise MissingKey(str(error)) from error
        prefix = f"{weight.part}." if family is None else _prefix(weight.part, family, dialect)
        yield NamedWeight(weight.part, prefix + (weight.name.replace(".", "_") if dialect == "kohya" else weight.name), factors)


def written_rows(path: str, shape: tuple[int, ...], base: str) -> int:
    """Returns the maximum number of rows of a module's ``up`` in a file of any dialect.

    If the original code fuses several modules into one weight, each rank-one component is written with rows for all of them, most of
    which are 0.

    Args:
        path: canonical path of the module.
        shape: shape of the module's weight.
        base: base model family; for an unknown family, the result is the module's own number of rows.
    """
    part, name = split_path(path)
    family = FAMILIES.get(base)
    found = _natives(family.name).find(name) if family and part == family.denoiser else None
    rows = found[0][1].rows if found else ()
    return max(shape[0], sum(rows) * shape[1]) if rows else shape[0]


def _family(modules: Modules, base: str) -> Family:
    if base in FAMILIES:
        return FAMILIES[base]
    parts = {path.partition(".")[0] for path in modules}
    if "transformer" in parts:
        raise MissingKey(f"a transformer's names depend on the base model, and {base!r} is none of {', '.join(FAMILIES)}")
    return FAMILIES["sdxl" if "text_encoder_2" in parts else "sd1"]


def _weights(modules: Modules, family: Family | None, dialect: Dialect) -> Iterator[_Weight]:
    done: set[str] = set()
    for path in sorted(modules):
        part, name = split_path(path)
        if family is None or part != family.denoiser or (dialect == "kohya" and not family.kohya_native):
            yield _Weight(part, name, Native((name,)), (path,))
        elif path not in done:
            weight = _native(part, name, family)
            done.update(weight.paths)
            yield weight


def _native(part: str, name: str, family: Family) -> _Weight:
    """Returns the weight of the original code that holds a module."""
    found = _natives(family.name).find(name)
    if found is None:
        raise MissingKey(f"the original code of {family.title} has no module like {part}.{name}")
    (template, record), indices = found
    return _Weight(part, fill(template, indices), record, tuple(f"{part}.{fill(module, indices)}" for module in record.modules))


@cache
def _natives(family: str) -> Grammar[tuple[str, Native]]:
    table = FAMILIES[family].native
    return Grammar({module: (template, record) for template, record in table.items() for module in record.modules}, ".")


def _prefix(part: str, family: Family, dialect: Dialect) -> str:
    if part == family.denoiser:
        return "lora_unet_" if dialect == "kohya" else "diffusion_model."
    for encoder in family.text_encoders:
        if part == encoder.part:
            return encoder.kohya if dialect == "kohya" else encoder.comfyui
    raise MissingKey(f"{family.title} has no {part}")
