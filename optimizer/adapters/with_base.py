"""Adapter kinds that multiply the base weight W: their change at strength 1, as a dense ΔW = W′ − W.

    DoRA     W′ = m ⊙ (W + ΔW) / ‖W + ΔW‖, over a LoRA, LoHa or LoKr ΔW; the norm is taken per output or per input
    (IA)³    W′ = W ⊙ l, where l scales the layer's outputs or its inputs
    OFT      W′ = s ⊙ RW or W′ = WRᵀ, where R is block-diagonal and orthogonal, by Cayley's transform of skew-symmetric blocks
    BOFT     the same with R a product of such matrices, each between two permutations (a butterfly)
    GLoRA    W′ = W + s·(WA + B), with A = a₁a₂ and B = b₁b₂

DoRA: Liu et al., arXiv:2402.09353. (IA)³: Liu et al., arXiv:2205.05638. OFT: Qiu et al., arXiv:2306.07280. BOFT: Liu et al.,
arXiv:2311.06243. GLoRA: Chavan et al., arXiv:2306.07967. What the tensors mean follows the forward passes of lycoris-lora 4.1
(``lycoris/modules``: locon, ia3, diag_oft, boft, glora) and of peft 0.21 (``peft/tuners``: lora/dora and the layer.py of ia3,
oft and boft).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from optimizer.adapters.expand import BrokenModule, Roles, expand
from optimizer.adapters.roles import LOHA, LOKR, LORA
from optimizer.adapters.rotations import blockwise, butterfly, cayley, neumann

NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})
_MOST_TERMS = 100  # far past any use; a file shall not choose how long we compute


@dataclass(frozen=True, eq=False)
class _Module:
    """One module's tensors beside the weight that they change; roles and weight in fp64."""

    path: str
    roles: Roles
    weight: Tensor
    alpha_of: Callable[[int], float]
    has_bias: bool
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class _Layout:
    """One way to store a kind: the roles that it always has, those that it may have, and what makes W′ (fp64) of them."""

    kind: str
    needed: frozenset[str]
    optional: frozenset[str]
    changed: Callable[[_Module], Tensor]


def base_kind(roles: Collection[str]) -> str | None:
    """The kind's name for people where the roles need the base weight, else None.

    Example:
        >>> base_kind(["up", "down", "dora_scale"]), base_kind(["up", "down"])
        ('DoRA', None)
    """
    layout = _layout(roles)
    return layout.kind if layout else None


def change(
    path: str,
    roles: Roles,
    weight: Tensor,
    alpha_of: Callable[[int], float],
    *,
    has_bias: bool,
    settings: Mapping[str, Any] = NO_SETTINGS,
) -> Tensor:
    """ΔW of one module at strength 1: fp32, of the weight's shape; computed in fp64.

    Args:
        path: canonical module path.
        roles: role → tensor. Beside ``oft_blocks``, ``alpha`` is OFT's constraint; otherwise alpha comes from ``alpha_of``.
        weight: the base weight, (out, in) or (out, in, kh, kw).
        alpha_of: rank → alpha of DoRA's and GLoRA's factors, as for ``expand``.
        has_bias: whether the base module has a bias, which PEFT's (IA)³ on outputs scales as well.
        settings: the fields of PEFT's adapter_config.json; what is missing has PEFT's default. Used: ``feedforward_modules`` for
            (IA)³ on square convolutions; ``use_cayley_neumann``, ``num_cayley_neumann_terms``, ``peft_version``, ``coft`` and
            ``eps`` for OFT.

    Raises:
        BrokenModule: tensors are missing, do not fit, or stand for something that is no change of the weight.
        ValueError: the roles are of no kind that needs the base weight.
    """
    layout = _layout(roles)
    if layout is None:
        raise ValueError(f"needs no base weight: {sorted(roles)}")
    if missing := sorted(layout.needed - roles.keys()):
        raise BrokenModule(sorted(layout.needed & roles.keys())[0], f"its other half, {missing[0]}, is missing")
    if strange := sorted(roles.keys() - layout.needed - layout.optional):
        raise BrokenModule(strange[0], f"does not belong beside {sorted(layout.needed)[0]}")
    if empty := [role for role, tensor in roles.items() if not tensor.numel()]:
        raise BrokenModule(empty[0], f"has no elements: shape {tuple(roles[empty[0]].shape)}")
    base = weight.double()
    module = _Module(path, {role: tensor.double() for role, tensor in roles.items()}, base, alpha_of, has_bias, settings)
    delta: Tensor = layout.changed(module).reshape(weight.shape) - base
    return delta.float()


def _layout(roles: Collection[str]) -> _Layout | None:
    return next((layout for layout in _LAYOUTS if layout.needed & set(roles)), None)


def _dora(module: _Module, role: str, dim: int) -> Tensor:
    """W′ with one magnitude per index of ``dim``. The eps is LyCORIS's (``functional/general.py``); PEFT has none."""
    factors = {name: tensor for name, tensor in module.roles.items() if name != role}
    if not factors:
        raise BrokenModule(role, "stands alone: the module has no factor")
    made = expand(module.path, factors, module.alpha_of)
    if made.shape[0] != module.weight.shape[0] or math.prod(made.shape) != module.weight.numel():
        raise BrokenModule(role, f"its factors make a {made.shape} change of a {tuple(module.weight.shape)} weight")
    direction = module.weight + made.delta().double().reshape(module.weight.shape)
    others = [d for d in range(direction.ndim) if d != dim]
    norm: Tensor = torch.linalg.vector_norm(direction, dim=others, keepdim=True) + torch.finfo(torch.float32).eps
    return _along(role, module.roles[role], direction, dim) * direction / norm


def _dora_lycoris(module: _Module) -> Tensor:
    """``dora_scale``: (out, 1[, 1, 1]), ``wd_on_output``, or (1, in[, 1, 1]); the two meet only where they mean the same."""
    shape, (out, into) = tuple(module.roles["dora_scale"].shape), module.weight.shape[:2]
    if shape[:2] not in ((out, 1), (1, into)):
        raise BrokenModule("dora_scale", f"shape {shape} is neither one column of {out} nor one row of {into}")
    return _dora(module, "dora_scale", 0 if shape[:2] == (out, 1) else 1)


def _dora_peft(module: _Module) -> Tensor:
    """``lora_magnitude_vector``: (out,), of a convolution (1, out, 1, 1); always one magnitude per output."""
    shape, out = tuple(module.roles["magnitude"].shape), module.weight.shape[0]
    if shape not in ((out,), (1, out, 1, 1)):
        raise BrokenModule("magnitude", f"shape {shape} is not one magnitude for each of {out} outputs")
    return _dora(module, "magnitude", 0)


def _ia3_lycoris(module: _Module) -> Tensor:
    """l = 1 + ``weight``, (n,) or (1, n, 1, 1); on outputs too it leaves the bias alone, as LyCORIS's forward pass does."""
    dim = 1 if _number(module, "on_input") else 0
    return module.weight * (1 + _along("weight", module.roles["weight"], module.weight, dim))


def _ia3_peft(module: _Module) -> Tensor:
    """l = ``ia3_l``; on outputs it multiplies what the layer returns, bias and all."""
    dim = _ia3_side(module)
    if dim == 0 and module.has_bias:
        raise BrokenModule("ia3_l", "scales the layer's bias too, which a change of the weight does not hold")
    return module.weight * _along("ia3_l", module.roles["ia3_l"], module.weight, dim)


def _ia3_side(module: _Module) -> int:
    """0 for outputs, 1 for inputs: (out, 1) and (1, in) of a linear layer tell, (1, n, 1, 1) of a convolution only by its n."""
    shape, (out, into) = tuple(module.roles["ia3_l"].shape), module.weight.shape[:2]
    sides = ((out, 1), (1, into)) if module.weight.ndim == 2 else ((1, out, 1, 1), (1, into, 1, 1))
    if shape not in sides:
        raise BrokenModule("ia3_l", f"shape {shape} is neither {sides[0]}, for outputs, nor {sides[1]}, for inputs")
    if module.weight.ndim == 2 or out != into:
        return sides.index(shape)
    names = module.settings.get("feedforward_modules")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BrokenModule("ia3_l", f"may scale {out} inputs or as many outputs: no list of feedforward_modules tells")
    return 1 if module.path.endswith(tuple(names)) else 0


def _oft_lycoris(module: _Module) -> Tensor:
    """Blocks b of Q = b − bᵀ and R = (I + Q)(I − Q)⁻¹; W′ = s ⊙ RᵀW for OFT, but s ⊙ R…W for BOFT; s is ``rescale``.

    The constraint on ‖Q‖, over all blocks, is alpha · out, none where alpha is 0. ``oft_blocks`` is (blocks, b, b) of OFT and
    (stages, blocks, b, b) of BOFT. The tensors of sd-scripts' own OFT (``networks/oft.py``) mean the same, if alpha is not 0.
    """
    blocks, rows = module.roles["oft_blocks"], module.weight.flatten(1)
    if blocks.ndim not in (3, 4) or blocks.shape[-1] != blocks.shape[-2]:
        raise BrokenModule("oft_blocks", f"shape {tuple(blocks.shape)} is not a list of square blocks")
    skew = blocks - blocks.mT
    bound, norm = _number(module, "alpha") * rows.shape[0] if "alpha" in module.roles else 0.0, float(skew.norm())
    rotations = cayley(skew * (bound / norm) if 0 < bound < norm else skew)
    if blocks.ndim == 3:
        rows = blockwise("oft_blocks", rotations.mT, rows)
    else:
        half = blocks.shape[-1] // 2
        for stage, rotation in enumerate(rotations):
            rows = butterfly("oft_blocks", rotation, rows, 2**stage * half, 1)
    return rows * _along("rescale", module.roles["rescale"], rows, 0) if "rescale" in module.roles else rows


def _oft_peft(module: _Module) -> Tensor:
    """W′ = WRᵀ. ``oft_R`` is (blocks, b(b−1)/2): the upper triangles of the skew-symmetric Q; one row stands for every block.

    R = (I − Q)(I + Q)⁻¹, or, with ``use_cayley_neumann``, the start of a series for its inverse.
    """
    packed, (columns, *kernel) = module.roles["oft_R"], module.weight.shape[1:]
    if any(n != 1 for n in kernel):
        raise BrokenModule("oft_R", "sits on a convolution with a kernel, where PEFT sums rotated patches: no change of the weight")
    size = (1 + math.isqrt(1 + 8 * packed.shape[-1])) // 2
    if packed.ndim != 2 or size * (size - 1) // 2 != packed.shape[1]:
        raise BrokenModule("oft_R", f"shape {tuple(packed.shape)} is not one upper triangle for each block")
    above, below = torch.triu_indices(size, size, 1)
    skew = packed.new_zeros(packed.shape[0], size, size)
    skew[:, above, below] = packed
    rotations = _peft_rotation(module, _projected(module, skew - skew.mT))
    if packed.shape[0] == 1:
        rotations = rotations.expand(columns // size, -1, -1)
    return blockwise("oft_R", rotations, module.weight.flatten(1).T).T


def _projected(module: _Module, skew: Tensor) -> Tensor:
    """Constrained OFT: each block's norm is at most ``eps`` / √blocks. PEFT saves what the last step left, before projecting."""
    if not _setting(module, "coft", False):
        return skew
    bound = _setting(module, "eps", 6e-5) / math.sqrt(skew.shape[0])
    norm = torch.linalg.vector_norm(skew, dim=(1, 2), keepdim=True)
    return torch.where(norm <= bound, skew, bound * skew / norm)


def _peft_rotation(module: _Module, skew: Tensor) -> Tensor:
    if not _setting(module, "use_cayley_neumann", True):
        return cayley(-skew)
    version = re.match(r"(\d+)\.(\d+)", str(module.settings.get("peft_version")))
    if module.settings and (version is None or tuple(map(int, version.groups())) < (0, 18)):
        raise BrokenModule("oft_R", "was written by PEFT before 0.18, whose Cayley-Neumann series differs")
    terms = int(_setting(module, "num_cayley_neumann_terms", 5))
    if not 1 <= terms <= _MOST_TERMS:
        raise BrokenModule("oft_R", f"num_cayley_neumann_terms is {terms}, not a number from 1 to {_MOST_TERMS}")
    return neumann(skew, terms)


def _boft_peft(module: _Module) -> Tensor:
    """W′ = s ⊙ WRᵀ with s = ``boft_s``, R = R_N … R_1 of ``boft_R`` (stages, blocks, b, b), and Q = (b − bᵀ)/2 in each."""
    blocks, rows = module.roles["boft_R"], module.weight.flatten(1).T
    if blocks.ndim != 4 or blocks.shape[-1] != blocks.shape[-2]:
        raise BrokenModule("boft_R", f"shape {tuple(blocks.shape)} is not a list of square blocks for each stage")
    rotations = cayley((blocks.mT - blocks) / 2)
    # The first stage permutes nothing, and where it is the only one its blocks may be odd.
    rows = blockwise("boft_R", rotations[0], rows)
    for stage, rotation in enumerate(rotations[1:], start=1):
        rows = butterfly("boft_R", rotation, rows, 2**stage, blocks.shape[-1] // 2)
    return rows.T * _along("boft_s", module.roles["boft_s"], rows.T, 0)


def _glora(module: _Module) -> Tensor:
    """a₁ (in, r), a₂ (r, in), b₁ (out, r), b₂ (r, in·kh·kw); A mixes input channels, so it acts at every place of a kernel."""
    (a1, a2), (b1, b2), rank = _pair(module, "a1", "a2"), _pair(module, "b1", "b2"), module.roles["a2"].shape[0]
    (out, into, *_), fan_in = module.weight.shape, module.weight.flatten(1).shape[1]
    makes = ((a1.shape[0], a2.shape[1]), (b1.shape[0], b2.shape[1]))
    if makes != ((into, into), (out, fan_in)) or len(b2) != rank:
        raise BrokenModule("a1", f"a1·a2 is {makes[0]} and b1·b2 {makes[1]}, for a {tuple(module.weight.shape)} weight")
    mixed = torch.einsum("oi...,ij->oj...", torch.einsum("oi...,ir->or...", module.weight, a1), a2)
    return module.weight + module.alpha_of(rank) / rank * (mixed + (b1 @ b2).reshape(module.weight.shape))


def _pair(module: _Module, first: str, second: str) -> tuple[Tensor, Tensor]:
    """Two factors as matrices that multiply."""
    left, right = module.roles[first], module.roles[second]
    if left.ndim < 2 or right.ndim < 2 or left.flatten(1).shape[1] != right.shape[0]:
        raise BrokenModule(first, f"shapes do not multiply: {tuple(left.shape)} @ {tuple(right.shape)}")
    return left.flatten(1), right.flatten(1)


def _along(role: str, vector: Tensor, weight: Tensor, dim: int) -> Tensor:
    """A vector of any layout, shaped to multiply the weight along one dimension."""
    if vector.numel() != weight.shape[dim] or max(vector.shape, default=1) != vector.numel():
        side = f"{weight.shape[dim]} {('outputs', 'inputs')[dim]}"
        raise BrokenModule(role, f"shape {tuple(vector.shape)} is not one value for each of {side}")
    return vector.reshape([-1 if d == dim else 1 for d in range(weight.ndim)])


def _number(module: _Module, role: str) -> float:
    tensor = module.roles[role]
    if tensor.numel() != 1 or float(tensor.reshape(())) < 0:
        raise BrokenModule(role, f"is not one number of at least 0: shape {tuple(tensor.shape)}")
    return float(tensor.reshape(()))


def _setting(module: _Module, name: str, default: float) -> float:
    """A switch or a number of adapter_config.json, of its default's type."""
    value = module.settings.get(name, default)
    fits = type(value) is type(default) or (type(default) is float and type(value) is int)
    if not fits or not abs(value) < 1e300:
        raise BrokenModule("oft_R", f"adapter_config.json gives {name} as {str(value)[:40]!r}")
    return float(value)


_FACTORS = frozenset((*LORA, *LOHA, *LOKR))
_LAYOUTS = (
    _Layout("DoRA", frozenset({"dora_scale"}), _FACTORS, _dora_lycoris),
    _Layout("DoRA", frozenset({"magnitude"}), _FACTORS, _dora_peft),
    _Layout("(IA)³", frozenset({"weight", "on_input"}), frozenset(), _ia3_lycoris),
    _Layout("(IA)³", frozenset({"ia3_l"}), frozenset(), _ia3_peft),
    _Layout("OFT or BOFT", frozenset({"oft_blocks"}), frozenset({"rescale", "alpha"}), _oft_lycoris),
    _Layout("OFT or BOFT", frozenset({"oft_R"}), frozenset(), _oft_peft),
    _Layout("OFT or BOFT", frozenset({"boft_R", "boft_s"}), frozenset(), _boft_peft),
    _Layout("GLoRA", frozenset({"a1", "a2", "b1", "b2"}), frozenset(), _glora),
)
