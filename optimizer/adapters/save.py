"""Saves an Adapter as a file that other loaders apply at the correct strength.

``kohya``: ``lora_unet_….lora_up.weight``, ``.lora_down.weight`` and ``.alpha`` for every module; read by sd-scripts, A1111, Forge,
ComfyUI, InvokeAI and, for U-Nets and FLUX.1, diffusers. For Stable Diffusion XL and transformers, the denoiser's modules have the
names and fused weights of the original code, as in sd-scripts. diffusers (0.42) applies per-module alphas to some modules only: it
ignores those of attention and text modules when the alphas of a part differ, and those of FLUX.1's last layers always. Therefore all
modules of a U-Net or a text encoder get one common alpha, modules of a transformer get alpha = rank, and ``up`` absorbs the difference.

``comfyui``: the factors of ``kohya`` with the keys of ComfyUI's own models, which are the dotted names of the original code.

In ``kohya`` and ``comfyui``, a dense change (one factor is the identity) is stored as ``.diff``, a tensor of the weight's shape, as in
LyCORIS; sd-scripts and diffusers do not read ``.diff``.

``diffusers``: ``unet.….lora_A.weight`` and ``lora_B.weight``. Such files cannot hold ``.alpha`` tensors (diffusers refuses names
without "lora"), and only diffusers reads the alphas in the header. Therefore ``up`` absorbs the whole scale and alpha equals the
rank in every module, which is the default of readers that ignore the header; the header states this alpha, too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.adapters.files.container import serialise, write_atomically
from optimizer.adapters.files.declared_alphas import METADATA_KEY
from optimizer.adapters.files.dtypes import DTYPES
from optimizer.adapters.names.dialects import Dialect, MissingKey, NamedWeight, named_weights
from optimizer.adapters.names.paths import split_path
from optimizer.errors import AdapterError

_STALE = ("ss_network_", "sshs_", "modelspec.hash_sha256", METADATA_KEY, "format")
_COMFORTABLE = (2.0**-10, 2.0**14)


def save_adapter(
    adapter: Adapter,
    path: str | Path,
    dialect: Dialect = "kohya",
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes an adapter as a safetensors file, atomically and deterministically.

    Args:
        adapter: the adapter to write.
        path: the new file, in an existing folder; an existing file is replaced.
        dialect: ``kohya``, ``diffusers`` or ``comfyui``.
        dtype: dtype of the factors: fp16, bf16 or fp32. Alphas are fp32.
        metadata: header strings; by default the adapter's own, without those that describe the tensors of the source file.

    Returns:
        The path of the file.

    Raises:
        AdapterError: the adapter has no modules, the dialect has no name for one, a value does not fit the dtype, or the file cannot be
            written.
    """
    path = Path(path)
    tensors, own = adapter_tensors(adapter, path, dialect=dialect, dtype=dtype)
    if metadata is None:
        metadata = {key: value for key, value in adapter.metadata.items() if not key.startswith(_STALE)}
    write_atomically(serialise(tensors, {**metadata, **own}), path)
    return path


def adapter_tensors(
    adapter: Adapter, path: str | Path, *, dialect: Dialect = "kohya", dtype: torch.dtype = torch.float16
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the content that ``save_adapter`` writes: tensor name → tensor, and the metadata that readers of the dialect need."""
    path = Path(path)
    if dialect not in get_args(Dialect):
        raise AdapterError(f"unknown dialect {dialect!r}", file=path, remedy=f"use one of {', '.join(get_args(Dialect))}")
    if dtype not in DTYPES.values():
        raise AdapterError(f"cannot be written as {dtype}", file=path, remedy="use torch.float16, torch.bfloat16 or torch.float32")
    if not adapter.modules:
        raise AdapterError(
            f"the adapter {adapter.name!r} has no modules", file=path, remedy="nothing to write: check the sources and weights"
        )
    weights = _named_weights(adapter, path, dialect)
    whole = {} if dialect == "diffusers" else {w.name: matrix for w in weights if (matrix := _whole(w.factors)) is not None}
    tensors: dict[str, Tensor] = {}
    for weight in _with_alphas([w for w in weights if w.name not in whole], dialect):
        name, factors = weight.name, weight.factors
        up, down = _file_factors(factors, dtype)
        up, down = _check_values(up, "up", name, path, dtype), _check_values(down, "down", name, path, dtype)
        if dialect == "diffusers":
            tensors |= {f"{name}.lora_B.weight": up, f"{name}.lora_A.weight": down}
        else:
            tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.alpha": torch.tensor(float(factors.alpha))}
    for name, matrix in whole.items():
        tensors[f"{name}.diff"] = _check_values(matrix.detach().cpu().to(dtype), "diff", name, path, dtype)
    return tensors, _lora_configs(adapter.modules) if dialect == "diffusers" else {}


def _named_weights(adapter: Adapter, path: Path, dialect: Dialect) -> list[NamedWeight]:
    try:
        return list(named_weights(adapter.modules, adapter.base, dialect))
    except MissingKey as error:
        problem = f"cannot be written in the {dialect} dialect: {error}"
        raise AdapterError(problem, file=path, remedy="write the diffusers dialect, which has a name for every module") from error


def _with_alphas(weights: list[NamedWeight], dialect: Dialect) -> list[NamedWeight]:
    """Returns the weights with the common alpha of their part, or with alpha = rank; ``up`` is rescaled so that ΔW is unchanged."""
    common = {} if dialect == "diffusers" else _common_alphas(weights)
    return [replace(weight, factors=_with_alpha(weight.factors, common.get(weight.part))) for weight in weights]


def _with_alpha(factors: Factors, alpha: float | None) -> Factors:
    alpha = float(factors.rank) if alpha is None else alpha
    return factors if factors.alpha == alpha else replace(factors, up=factors.up.float() * (factors.alpha / alpha), alpha=alpha)


def _common_alphas(weights: list[NamedWeight]) -> dict[str, float]:
    """Returns part → most frequent alpha of its weights (the greatest in a tie); transformers are omitted."""
    counts: dict[str, Counter[float]] = {}
    for weight in weights:
        if weight.part != "transformer":
            counts.setdefault(weight.part, Counter())[abs(weight.factors.alpha) or float(weight.factors.rank)] += 1
    return {part: max(count, key=lambda alpha: (count[alpha], alpha)) for part, count in counts.items()}


def _file_factors(factors: Factors, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns up and down in the file's dtype, with kernel dimensions if the weight is a convolution."""
    up, down = factors.up.detach().cpu().float(), factors.down.detach().cpu().float()
    if dtype == torch.float16:
        up, down = _balance(up, down)
    kernel = factors.shape[2:]
    if kernel:
        up = up.reshape(*up.shape, *(1 for _ in kernel))
        down = down.reshape(factors.rank, factors.shape[1], *kernel)
    return up.to(dtype), down.to(dtype)


def _balance(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Moves powers of two between the factors of each rank-one term that would lose precision in fp16; exact, ΔW is unchanged."""
    left, right = up.abs().amax(0), down.abs().amax(1)
    low, high = _COMFORTABLE
    lost = ((left < low) | (right < low) | (left > high) | (right > high)) & (left > 0) & (right > 0)
    shift = torch.where(lost, torch.round((right.log2() - left.log2()) / 2), torch.zeros(())).nan_to_num(0.0)
    return torch.ldexp(up, shift), torch.ldexp(down, -shift[:, None])


def _whole(factors: Factors) -> Tensor | None:
    """Returns ΔW in the weight's shape if one factor is the identity and the scale is 1, else None."""
    if not factors.rank or factors.scale != 1:
        return None
    for one, other in ((factors.up, factors.down), (factors.down, factors.up)):
        if one.shape[0] == one.shape[1] and torch.equal(one, torch.eye(len(one), dtype=one.dtype, device=one.device)):
            return other.reshape(factors.shape)
    return None


def _check_values(tensor: Tensor, what: str, module: str, path: Path, dtype: torch.dtype) -> Tensor:
    if tensor.numel() == 0:
        raise AdapterError(f"{what} has no elements: shape {tuple(tensor.shape)}", file=path, key=module, remedy="a merge gave rank 0")
    if not bool(torch.isfinite(tensor).all()):
        raise AdapterError(
            f"{what} has values that are not finite as {dtype}", file=path, key=module, remedy="check the weights, or use fp32"
        )
    return tensor


def _lora_configs(modules: Mapping[str, Factors]) -> dict[str, str]:
    """Returns the fields of PEFT's LoraConfig for every part, as metadata in the format of diffusers."""
    fields: dict[str, Any] = {}
    for part in sorted({path.partition(".")[0] for path in modules}):
        # Without the ``text_model.`` level, module name suffixes are equal in all versions of transformers.
        ranks = {
            split_path(path)[1].removeprefix("text_model."): factors.rank
            for path, factors in modules.items()
            if path.startswith(f"{part}.")
        }
        usual = max(Counter(ranks.values()).items(), key=lambda item: (item[1], item[0]))[0]
        others = {_pattern(name, ranks): rank for name, rank in ranks.items() if rank != usual}
        config = {"r": usual, "lora_alpha": usual, "rank_pattern": others, "alpha_pattern": others, "target_modules": sorted(ranks)}
        fields |= {f"{part}.{key}": value for key, value in config.items()}
    return {METADATA_KEY: json.dumps(fields, sort_keys=True, separators=(",", ":"))}


def _pattern(name: str, names: Collection[str]) -> str:
    """Returns the PEFT pattern for a name; anchored with ``^`` if the name is a suffix of another one (``proj_out`` of FLUX.1)."""
    return f"^{name}" if any(other.endswith(f".{name}") for other in names) else name
