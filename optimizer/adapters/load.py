"""Loads a LoRA or LyCORIS file of any dialect as an Adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from optimizer.adapters.adapter import Adapter, Coverage
from optimizer.adapters.base_dependent.base_weights import BaseWeights
from optimizer.adapters.base_dependent.kinds import base_kind
from optimizer.adapters.clean_names import clean_name
from optimizer.adapters.expand import kind_of
from optimizer.adapters.factors import Factors
from optimizer.adapters.families import FAMILIES, Family
from optimizer.adapters.families.detection import base_family, by_metadata, by_shapes
from optimizer.adapters.files.container import Header, read_header, read_tensors
from optimizer.adapters.files.contents import Contents, read_contents
from optimizer.adapters.files.declared_alphas import declared_alphas
from optimizer.adapters.module_values import File
from optimizer.adapters.names.tensor_suffixes import BAKE
from optimizer.adapters.shapes import with_shape
from optimizer.errors import AdapterError, BaseModelError

Modules = dict[str, Factors]


def load_adapter(path: str | Path, *, name: str | None = None, allow_unknown: bool = False, base: BaseWeights | None = None) -> Adapter:
    """Reads a LoRA, LoCon, LoHa, LoKr or full difference; with the base model, also a DoRA, (IA)³, OFT, BOFT or GLoRA.

    Supports the key names of kohya, OneTrainer, LyCORIS, diffusers, PEFT, ComfyUI, XLabs and the models' original code. Reads
    safetensors only; the header is checked before any tensor is read. The factors of a plain LoRA are views of the file's bytes in the
    stored dtype. LyCORIS factors are expanded to low rank exactly, in fp32 (``optimizer.adapters.expand``). Fused projections of the
    original code are split. Alpha is per module: from its tensor, else as declared in the header or in PEFT's adapter_config.json,
    else equal to the rank.

    Args:
        path: a ``.safetensors`` file.
        name: short name of the adapter, by default the file's stem; characters other than letters, digits and ``.+_-`` become ``_``.
        allow_unknown: if True, skip unrecognised and optional tensors (biases, norms, embeddings) and record them in ``coverage``
            instead of raising an error.
        base: base model weights; an adapter kind that multiplies them becomes its ΔW at strength 1, at full rank.

    Raises:
        AdapterError: the file is missing, broken, not safetensors, of a kind that needs the base model while none is given, or holds
            unrecognised tensors or invalid values. The error names file, tensor and remedy.
        BaseModelError: the base model lacks a module that is needed.
    """
    header = read_header(path)
    ways = read_contents(header, allow_unknown)
    if base is None:
        _refuse_without_base(ways[0], header)
    declared = declared_alphas(header)
    tensors, digest = read_tensors(header)
    file = File(header, tensors, declared, base)
    contents, modules = _most_telling(ways, file)
    family, reason = base_family(modules, header.metadata, contents.families)
    return Adapter(
        name=clean_name(header.path.stem if name is None else name),
        modules=_with_convolutions(modules, FAMILIES[family]) if family in FAMILIES else modules,
        base=family,
        base_reason=reason,
        dialect=contents.dialect,
        kinds=Counter(_kind(names) for names in contents.modules.values()),
        metadata=dict(header.metadata),
        coverage=Coverage(tuple(t for t in header.entries if t not in contents.unknown), contents.unknown),
        sha256=digest,
    )


def _most_telling(ways: list[Contents], file: File) -> tuple[Contents, Modules]:
    """Returns the interpretation whose families match the shapes, else the metadata, else the first that can be read.

    Raises:
        AdapterError, BaseModelError: no interpretation can be read; the error of the first one.
    """
    read: list[tuple[Contents, Modules]] = []
    errors: list[AdapterError | BaseModelError] = []
    for way in ways:
        try:
            read.append((way, _modules(way, file)))
        except (AdapterError, BaseModelError) as error:
            errors.append(error)
    if not read:
        raise errors[0]
    by_shape = (found for found in read if by_shapes(found[1], found[0].families))
    by_name = (found for found in read if by_metadata(file.header.metadata, found[0].families))
    return next(by_shape, None) or next(by_name, read[0])


def _modules(contents: Contents, file: File) -> Modules:
    found: Modules = {}
    for target, names in contents.modules.items():
        found |= file.factors(target, names)
    return dict(sorted(found.items()))


def _kind(names: Mapping[str, str]) -> str:
    return base_kind(names) or kind_of(names.keys() - {"alpha"})


def _refuse_without_base(contents: Contents, header: Header) -> None:
    needy = [names for names in contents.modules.values() if base_kind(names)]
    if not needy:
        return
    kind, tensor = base_kind(needy[0]), next(tensor for suffix, tensor in needy[0].items() if base_kind([suffix]))
    problem = f"is {kind}, whose change depends on the base weight ({len(needy)} modules)"
    raise AdapterError(problem, file=header.path, key=tensor, remedy=f"give the base model's folder, or {BAKE}")


def _with_convolutions(modules: Mapping[str, Factors], family: Family) -> Modules:
    """Returns the modules with the family's 1 × 1 convolutions as such; LyCORIS stores their factors as matrices."""
    ends = tuple(f".{leaf}" for leaf in family.convolutions)
    return {
        path: with_shape(factors, (*factors.shape, 1, 1)) if path.endswith(ends) and len(factors.shape) == 2 else factors
        for path, factors in modules.items()
    }
