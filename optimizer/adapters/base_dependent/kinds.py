"""Adapter kinds that multiply the base weight W: computes their change at strength 1 as a dense ΔW = W′ − W.

    DoRA     W′ = m ⊙ (W + ΔW) / ‖W + ΔW‖, over a LoRA, LoHa or LoKr ΔW; the norm is taken per output or per input
    (IA)³    W′ = W ⊙ l, where l scales the layer's outputs or its inputs
    OFT      W′ = s ⊙ RW or W′ = WRᵀ, where R is block-diagonal and orthogonal, by the Cayley transform of skew-symmetric blocks
    BOFT     OFT with R a product of block-diagonal matrices, each between two permutations (a butterfly)
    GLoRA    W′ = W + s·(WA + B), with A = a₁a₂ and B = b₁b₂

DoRA: Liu et al., arXiv:2402.09353. (IA)³: Liu et al., arXiv:2205.05638. OFT: Qiu et al., arXiv:2306.07280. BOFT: Liu et al.,
arXiv:2311.06243. GLoRA: Chavan et al., arXiv:2306.07967. The meaning of the tensors follows the forward passes of lycoris-lora 4.1
(``lycoris/modules``: locon, ia3, diag_oft, boft, glora) and of peft 0.21 (``peft/tuners``: lora/dora and the layer.py of ia3,
oft and boft).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from optimizer.adapters.base_dependent.module import Based, along, number
from optimizer.adapters.base_dependent.orthogonal import boft_peft, oft_lycoris, oft_peft
from optimizer.adapters.expand import BrokenModule, Tensors, expand
from optimizer.adapters.names.tensor_suffixes import LOHA, LOKR, LORA

NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class _Storage:
    """How a tool stores a kind: required suffixes, optional suffixes, and the function that computes W′ (fp64)."""

    kind: str
    needed: frozenset[str]
    optional: frozenset[str]
    changed: Callable[[Based], Tensor]


def base_kind(suffixes: Collection[str]) -> str | None:
    """Returns the display name of the kind of these tensors if they need the base weight, else None.

    Example:
        >>> base_kind(["up", "down", "dora_scale"]), base_kind(["up", "down"])
        ('DoRA', None)
    """
    storage = _storage(suffixes)
    return storage.kind if storage else None


def change(
    path: str,
    tensors: Tensors,
    weight: Tensor,
    alpha_of: Callable[[int], float],
    *,
    has_bias: bool,
    settings: Mapping[str, Any] = NO_SETTINGS,
) -> Tensor:
    """Returns ΔW of one module at strength 1: fp32, in the weight's shape; computed in fp64.

    Args:
        path: canonical module path.
        tensors: suffix → tensor. With ``oft_blocks``, ``alpha`` is OFT's constraint; otherwise alpha comes from ``alpha_of``.
        weight: the base weight, (out, in) or (out, in, kh, kw).
        alpha_of: function from rank to alpha for the factors of DoRA and GLoRA, as for ``expand``.
        has_bias: whether the base module has a bias, which PEFT's (IA)³ on outputs scales as well.
        settings: fields of PEFT's adapter_config.json; missing fields have PEFT's default. Used: ``feedforward_modules`` for
            (IA)³ on square convolutions; ``use_cayley_neumann``, ``num_cayley_neumann_terms``, ``peft_version``, ``coft`` and
            ``eps`` for OFT.

    Raises:
        BrokenModule: tensors are missing, have wrong shapes, or describe something other than a change of the weight.
        ValueError: the tensors belong to no kind that needs the base weight.
    """
    storage = _storage(tensors)
    if storage is None:
        raise ValueError(f"needs no base weight: {sorted(tensors)}")
    if missing := sorted(storage.needed - tensors.keys()):
        raise BrokenModule(sorted(storage.needed & tensors.keys())[0], f"its other half, {missing[0]}, is missing")
    if strange := sorted(tensors.keys() - storage.needed - storage.optional):
        raise BrokenModule(strange[0], f"does not belong beside {sorted(storage.needed)[0]}")
    if empty := [suffix for suffix, tensor in tensors.items() if not tensor.numel()]:
        raise BrokenModule(empty[0], f"has no elements: shape {tuple(tensors[empty[0]].shape)}")
    base = weight.double()
    module = Based(path, {suffix: tensor.double() for suffix, tensor in tensors.items()}, base, alpha_of, has_bias, settings)
    delta: Tensor = storage.changed(module).reshape(weight.shape) - base
    return delta.float()


def _storage(suffixes: Collection[str]) -> _Storage | None:
    return next((storage for storage in _STORAGES if storage.needed & set(suffixes)), None)


def _dora(module: Based, suffix: str, dim: int) -> Tensor:
    """Returns W′ of a DoRA with one magnitude per index of ``dim``. The eps is LyCORIS's (``functional/general.py``); PEFT has none."""
    factors = {name: tensor for name, tensor in module.tensors.items() if name != suffix}
    if not factors:
        raise BrokenModule(suffix, "stands alone: the module has no factor")
    made = expand(module.path, factors, module.alpha_of)
    if made.shape[0] != module.weight.shape[0] or math.prod(made.shape) != module.weight.numel():
        raise BrokenModule(suffix, f"its factors make a {made.shape} change of a {tuple(module.weight.shape)} weight")
    direction = module.weight + made.delta().double().reshape(module.weight.shape)
    others = [d for d in range(direction.ndim) if d != dim]
    norm: Tensor = torch.linalg.vector_norm(direction, dim=others, keepdim=True) + torch.finfo(torch.float32).eps
    return along(suffix, module.tensors[suffix], direction, dim) * direction / norm


def _dora_lycoris(module: Based) -> Tensor:
    """Returns W′ for ``dora_scale`` of shape (out, 1[, 1, 1]), which is ``wd_on_output``, or (1, in[, 1, 1])."""
    shape, (out, into) = tuple(module.tensors["dora_scale"].shape), module.weight.shape[:2]
    if shape[:2] not in ((out, 1), (1, into)):
        raise BrokenModule("dora_scale", f"shape {shape} is neither one column of {out} nor one row of {into}")
    return _dora(module, "dora_scale", 0 if shape[:2] == (out, 1) else 1)


def _dora_peft(module: Based) -> Tensor:
    """Returns W′ for ``lora_magnitude_vector`` of shape (out,), or (1, out, 1, 1) for a convolution: one magnitude per output."""
    shape, out = tuple(module.tensors["magnitude"].shape), module.weight.shape[0]
    if shape not in ((out,), (1, out, 1, 1)):
        raise BrokenModule("magnitude", f"shape {shape} is not one magnitude for each of {out} outputs")
    return _dora(module, "magnitude", 0)


def _ia3_lycoris(module: Based) -> Tensor:
    """Returns W′ for l = 1 + ``weight``, (n,) or (1, n, 1, 1); a bias is not scaled, as in LyCORIS's forward pass."""
    dim = 1 if number(module, "on_input") else 0
    return module.weight * (1 + along("weight", module.tensors["weight"], module.weight, dim))


def _ia3_peft(module: Based) -> Tensor:
    """Returns W′ for l = ``ia3_l``; on outputs, l scales the layer's output including its bias, which is an error if there is one."""
    dim = _ia3_side(module)
    if dim == 0 and module.has_bias:
        raise BrokenModule("ia3_l", "scales the layer's bias too, which a change of the weight does not hold")
    return module.weight * along("ia3_l", module.tensors["ia3_l"], module.weight, dim)


def _ia3_side(module: Based) -> int:
    """Returns the scaled dimension, 0 for outputs or 1 for inputs.

    A linear layer has (out, 1) or (1, in); a convolution has (1, n, 1, 1), which is ambiguous if out = in.
    """
    shape, (out, into) = tuple(module.tensors["ia3_l"].shape), module.weight.shape[:2]
    sides = ((out, 1), (1, into)) if module.weight.ndim == 2 else ((1, out, 1, 1), (1, into, 1, 1))
    if shape not in sides:
        raise BrokenModule("ia3_l", f"shape {shape} is neither {sides[0]}, for outputs, nor {sides[1]}, for inputs")
    if module.weight.ndim == 2 or out != into:
        return sides.index(shape)
    names = module.settings.get("feedforward_modules")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BrokenModule("ia3_l", f"may scale {out} inputs or as many outputs: no list of feedforward_modules tells")
    return 1 if module.path.endswith(tuple(names)) else 0


def _glora(module: Based) -> Tensor:
    """Returns W′ for a₁ (in, r), a₂ (r, in), b₁ (out, r), b₂ (r, in·kh·kw); A mixes input channels at every kernel position."""
    (a1, a2), (b1, b2), rank = _pair(module, "a1", "a2"), _pair(module, "b1", "b2"), module.tensors["a2"].shape[0]
    (out, into, *_), fan_in = module.weight.shape, module.weight.flatten(1).shape[1]
    makes = ((a1.shape[0], a2.shape[1]), (b1.shape[0], b2.shape[1]))
    if makes != ((into, into), (out, fan_in)) or len(b2) != rank:
        raise BrokenModule("a1", f"a1·a2 is {makes[0]} and b1·b2 {makes[1]}, for a {tuple(module.weight.shape)} weight")
    mixed = torch.einsum("oi...,ij->oj...", torch.einsum("oi...,ir->or...", module.weight, a1), a2)
    return module.weight + module.alpha_of(rank) / rank * (mixed + (b1 @ b2).reshape(module.weight.shape))


def _pair(module: Based, first: str, second: str) -> tuple[Tensor, Tensor]:
    """Returns two factors as matrices with compatible inner dimensions."""
    left, right = module.tensors[first], module.tensors[second]
    if left.ndim < 2 or right.ndim < 2 or left.flatten(1).shape[1] != right.shape[0]:
        raise BrokenModule(first, f"shapes do not multiply: {tuple(left.shape)} @ {tuple(right.shape)}")
    return left.flatten(1), right.flatten(1)


_FACTORS = frozenset((*LORA, *LOHA, *LOKR))
_STORAGES = (
    _Storage("DoRA", frozenset({"dora_scale"}), _FACTORS, _dora_lycoris),
    _Storage("DoRA", frozenset({"magnitude"}), _FACTORS, _dora_peft),
    _Storage("(IA)³", frozenset({"weight", "on_input"}), frozenset(), _ia3_lycoris),
    _Storage("(IA)³", frozenset({"ia3_l"}), frozenset(), _ia3_peft),
    _Storage("OFT or BOFT", frozenset({"oft_blocks"}), frozenset({"rescale", "alpha"}), oft_lycoris),
    _Storage("OFT or BOFT", frozenset({"oft_R"}), frozenset(), oft_peft),
    _Storage("OFT or BOFT", frozenset({"boft_R", "boft_s"}), frozenset(), boft_peft),
    _Storage("GLoRA", frozenset({"a1", "a2", "b1", "b2"}), frozenset(), _glora),
)
