"""Loading: a LoRA or LyCORIS file of any dialect becomes an Adapter, or one clear error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from optimizer.adapters.adapter import Adapter, Coverage
from optimizer.adapters.alphas import Declared, declared_alphas
from optimizer.adapters.base import base_family
from optimizer.adapters.container import Header, read_header, read_tensors
from optimizer.adapters.expand import BrokenModule, expand
from optimizer.adapters.factors import Factors
from optimizer.adapters.keys import Refusal, TensorName, Unknown, read_name, suggestion
from optimizer.adapters.names import clean_name
from optimizer.adapters.shapes import reshaped
from optimizer.errors import AdapterError

_LISTED = 10
_TRAIN_AGAIN = "the file is damaged: get it again, or use another checkpoint of the training"


@dataclass(frozen=True)
class _Contents:
    """What the names of a file mean: module path → role → tensor name, and what was not understood."""

    modules: Mapping[str, Mapping[str, str]]
    coverage: Coverage


def load_adapter(path: str | Path, *, name: str | None = None, allow_unknown: bool = False) -> Adapter:
    """Read a LoRA, LoCon, LoHa or LoKr file.

    Reads kohya, LyCORIS, diffusers and PEFT names, always from safetensors; the header is checked before any tensor is read.
    Factors come in fp32. LyCORIS factors are expanded to low rank exactly (see ``optimizer.adapters.expand``). Alpha is per
    module: from its tensor, else as declared in the header or in PEFT's adapter_config.json, else equal to the rank.

    Args:
        path: a ``.safetensors`` file.
        name: short name of the adapter, by default the file's; letters, digits and ``._-``, the rest becomes ``_``.
        allow_unknown: leave out tensors that no dialect explains, and record them in ``coverage``, instead of failing.

    Raises:
        AdapterError: the file is missing, broken, not safetensors, of a kind that is not additive (DoRA, (IA)³, OFT, …), holds
            tensors that are not understood, or values that cannot be right. It names file, tensor and remedy.
    """
    header = read_header(path)
    contents = _understand(header, allow_unknown)
    declared = declared_alphas(header)
    tensors, digest = read_tensors(header)
    modules = {
        module: _module(module, contents.modules[module], tensors, declared.get(module.partition(".")[0]), header)
        for module in sorted(contents.modules)
    }
    family = base_family(modules, header.metadata)
    return Adapter(
        name=clean_name(header.path.stem if name is None else name),
        modules=_with_convolutions(modules) if family == "sd1" else modules,
        base=family,
        metadata=dict(header.metadata),
        coverage=contents.coverage,
        sha256=digest,
    )


def _understand(header: Header, allow_unknown: bool) -> _Contents:
    modules: dict[str, dict[str, str]] = {}
    unknown: dict[str, str] = {}
    refused: dict[str, Refusal] = {}
    for tensor in header.shapes:
        meaning = read_name(tensor)
        if isinstance(meaning, Refusal):
            refused[tensor] = meaning
        elif isinstance(meaning, Unknown):
            unknown[tensor] = meaning.reason
        else:
            _place(modules, meaning, tensor, header)
    if refused:
        raise _refusal(refused, header)
    if unknown and not (allow_unknown and modules):
        raise _strangers(unknown, len(header.shapes), header)
    return _Contents(modules, Coverage(tuple(t for t in header.shapes if t not in unknown), unknown))


def _place(modules: dict[str, dict[str, str]], meaning: TensorName, tensor: str, header: Header) -> None:
    roles = modules.setdefault(meaning.path, {})
    if meaning.role in roles:
        problem = f"stands for the same as {roles[meaning.role]!r}: {meaning.role} of {meaning.path}"
        raise AdapterError(problem, file=header.path, key=tensor, remedy="the file mixes two adapters: split it")
    roles[meaning.role] = tensor


def _refusal(refused: Mapping[str, Refusal], header: Header) -> AdapterError:
    kinds = Counter(refusal.kind for refusal in refused.values())
    kind = kinds.most_common()[0][0]
    tensor, refusal = next((t, r) for t, r in refused.items() if r.kind == kind)
    problem = f"is {kind}, which cannot be merged as a low-rank sum ({kinds[kind]} tensors)"
    return AdapterError(problem, file=header.path, key=tensor, remedy=refusal.remedy)


def _strangers(unknown: Mapping[str, str], count: int, header: Header) -> AdapterError:
    first = list(unknown.items())[:_LISTED]
    listed = "; ".join(f"{tensor[:160]} ({reason}; nearest pattern: {suggestion(tensor)})" for tensor, reason in first)
    more = f"; and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
    if len(unknown) == count:
        remedy = "name a LoRA, LoHa or LoKr file of a supported base model, not a checkpoint or an embedding"
    else:
        remedy = "check that the file belongs to a supported base model, or allow unknown tensors to leave these out"
    return AdapterError(f"{len(unknown)} of {count} tensors are not understood: {listed}{more}", file=header.path, remedy=remedy)


def _module(path: str, roles: Mapping[str, str], tensors: Mapping[str, Tensor], declared: Declared | None, header: Header) -> Factors:
    values = {role: tensors[tensor] for role, tensor in roles.items()}
    for role, value in values.items():
        _check_values(value, roles[role], header)
    alpha_of: Callable[[int], float] = float
    if "alpha" in values:
        alpha = _alpha(values.pop("alpha"), roles["alpha"], header)
        alpha_of = partial(_given, alpha)
    elif declared is not None:
        alpha_of = partial(declared.alpha_of, path.partition(".")[2])
    try:
        return expand(path, values, alpha_of)
    except BrokenModule as broken:
        raise AdapterError(broken.problem, file=header.path, key=roles.get(broken.role, path), remedy=_TRAIN_AGAIN) from broken


def _check_values(value: Tensor, tensor: str, header: Header) -> None:
    if value.numel() == 0:
        raise AdapterError(f"has no elements: shape {tuple(value.shape)}", file=header.path, key=tensor, remedy=_TRAIN_AGAIN)
    if not value.is_floating_point() and not tensor.endswith(".alpha"):
        raise AdapterError(
            f"holds {value.dtype}, not floating-point numbers", file=header.path, key=tensor, remedy="use an unquantised file"
        )
    bad = int((~torch.isfinite(value.float())).sum())
    if bad:
        raise AdapterError(f"{bad} of {value.numel()} values are NaN or infinite", file=header.path, key=tensor, remedy=_TRAIN_AGAIN)


def _alpha(value: Tensor, tensor: str, header: Header) -> float:
    if value.numel() != 1:
        raise AdapterError(f"is not one number: shape {tuple(value.shape)}", file=header.path, key=tensor, remedy=_TRAIN_AGAIN)
    alpha = float(value.reshape(()))
    if alpha == 0:
        problem = "is 0, which sd-scripts reads as alpha = rank and other tools as no change at all"
        raise AdapterError(problem, file=header.path, key=tensor, remedy="set it to what the training used")
    return alpha


def _given(alpha: float, rank: int) -> float:
    return alpha


def _with_convolutions(modules: Mapping[str, Factors]) -> dict[str, Factors]:
    """LyCORIS stores a 1 × 1 convolution's factors as matrices; in SD 1.5, proj_in and proj_out are such convolutions."""
    return {
        path: reshaped(factors, (*factors.shape, 1, 1)) if path.endswith((".proj_in", ".proj_out")) and len(factors.shape) == 2 else factors
        for path, factors in modules.items()
    }
