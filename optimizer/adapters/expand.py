"""Exact conversion of one module's stored factors to the canonical low-rank form.

    LoRA    ΔW = s·up·down; with LoCon's middle factor (Tucker or CP form), Σ mid[m,n,·]·up[:,m]·down[n,:]
    LoHa    ΔW = s·(A₁B₁) ⊙ (A₂B₂) = s·(A₁ • A₂)(B₁ ∗ B₂), row-wise and column-wise Khatri-Rao products; rank r₁r₂
    LoKr    ΔW = s·(U₁V₁) ⊗ (U₂V₂) = s·(U₁ ⊗ U₂)(V₁ ⊗ V₂); rank r₁r₂
    full    ΔW itself

LoHa: Hyeon-Woo et al., FedPara, arXiv:2108.06098. LoKr: Yeh et al., LyCORIS, arXiv:2309.14859. Where r₁r₂ is at least the smaller
dimension of the weight, the factors are ΔW itself and an identity matrix, which take less memory and are exact. The scale is applied
once, as in LyCORIS's forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from optimizer.adapters.factors import Factors
from optimizer.adapters.names.paths import kernel_size
from optimizer.adapters.names.tensor_suffixes import FULL, LOHA, LOKR, LORA

Tensors = Mapping[str, Tensor]
"""Suffix → tensor, for the tensors of one module."""


class BrokenModule(Exception):
    """The tensors of one module do not form a valid ΔW; carries the problem and the suffix of the tensor that causes it."""

    def __init__(self, suffix: str, problem: str) -> None:
        self.suffix, self.problem = suffix, problem
        super().__init__(f"{suffix}: {problem}")


@dataclass(frozen=True)
class _Product:
    """Unscaled ΔW as left (out, r) @ right (r, fan_in), with the rank that alpha refers to."""

    left: Tensor
    right: Tensor
    rank: int
    kernel: tuple[int, ...] | None
    scaled: bool = True


def expand(path: str, tensors: Tensors, alpha_of: Callable[[int], float]) -> Factors:
    """Returns the canonical factors of one module.

    Args:
        path: canonical module path; determines the kernel size of a convolution if the tensors do not.
        tensors: suffix → tensor, without alpha; all of one kind. Factors of a plain LoRA keep their dtype, all others become fp32.
        alpha_of: function from the rank stored in the file to alpha; ``float`` means alpha = rank.

    Raises:
        BrokenModule: a tensor is missing, or the shapes are inconsistent.
    """
    kind = kind_of(tensors)
    held = _as_stored if kind == "LoRA" and "mid" not in tensors else Tensor.float
    product = _KINDS[kind]({suffix: held(tensor) for suffix, tensor in tensors.items()})
    wide = product.left.shape[1]
    alpha = alpha_of(product.rank) if product.scaled else float(wide)
    if product.scaled and wide != product.rank:
        alpha *= wide / product.rank
    return Factors(product.left.contiguous(), product.right.contiguous(), alpha, _weight_shape(path, product))


def dense_factors(delta: Tensor) -> Factors:
    """Returns the factors of a dense ΔW, (out, in) or (out, in, kh, kw): ΔW itself and an identity of the smaller dimension."""
    left, right = _split(delta.flatten(1))
    return Factors(left, right, float(left.shape[1]), tuple(delta.shape))


def kind_of(suffixes: Collection[str]) -> str:
    """Returns the kind of the tensors with these suffixes: ``LoRA``, ``LoHa``, ``LoKr`` or ``full``.

    Raises:
        BrokenModule: the tensors belong to no kind or to several.
    """
    for kind, known in _SUFFIXES.items():
        if not (own := sorted(set(suffixes) & set(known))):
            continue
        if strange := sorted(set(suffixes) - set(known)):
            raise BrokenModule(strange[0], f"does not belong beside {own[0]}")
        return kind
    raise BrokenModule("alpha", "stands alone: the module has no factor")


def _as_stored(tensor: Tensor) -> Tensor:
    """Returns fp16, bf16 and fp32 tensors without a copy; 8-bit dtypes become fp16, all others fp32."""
    if tensor.dtype in (torch.float16, torch.bfloat16, torch.float32):
        return tensor
    return tensor.to(torch.float16 if tensor.dtype.itemsize == 1 else torch.float32)


def _need(tensors: Tensors, *needed: str) -> list[Tensor]:
    for suffix in needed:
        if suffix not in tensors:
            raise BrokenModule(sorted(tensors)[0], f"its other half, {suffix}, is missing")
    return [tensors[suffix] for suffix in needed]


def _lora(tensors: Tensors) -> _Product:
    up, down = _need(tensors, "up", "down")
    left = _matrix("up", up)
    if "mid" in tensors:
        right = _tucker("mid", tensors["mid"], _matrix("down", down))
        _check_product("mid", left, right)
        return _Product(left, right, down.shape[0], tuple(tensors["mid"].shape[2:]))
    if down.ndim not in (2, 4):
        raise BrokenModule("down", f"has {down.ndim} dimensions, expected 2 or 4")
    right = down.flatten(1)
    _check_product("down", left, right)
    # One factor may be stored as a matrix while the other is still 4-dimensional, as in a convolution.
    kernel = tuple(down.shape[2:]) if down.ndim == 4 else ((1, 1) if up.ndim == 4 else None)
    return _Product(left, right, down.shape[0], kernel)


def _loha(tensors: Tensors) -> _Product:
    w1a, w1b, w2a, w2b = _need(tensors, "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    kernel: tuple[int, ...] | None = None
    if tensors.keys() & {"hada_t1", "hada_t2"}:
        t1, t2 = _need(tensors, "hada_t1", "hada_t2")
        kernel = tuple(t1.shape[2:])
        # In the Tucker form the outer factors are stored as (rank, out) and (rank, in).
        w1a, w2a = w1a.T, w2a.T
        w1b, w2b = _tucker("hada_t1", t1, w1b), _tucker("hada_t2", t2, w2b)
    for name, left, right in (("hada_w1_b", w1a, w1b), ("hada_w2_b", w2a, w2b)):
        _check_product(name, left, right)
    if w1a.shape[0] != w2a.shape[0] or w1b.shape[1] != w2b.shape[1]:
        raise BrokenModule("hada_w2_a", f"its product is {w2a.shape[0]} × {w2b.shape[1]}, the first one {w1a.shape[0]} × {w1b.shape[1]}")
    rank = tensors["hada_w1_b"].shape[0]
    if w1a.shape[1] * w2a.shape[1] >= min(w1a.shape[0], w1b.shape[1]):
        return _dense((w1a @ w1b) * (w2a @ w2b), rank, kernel)
    left = (w1a[:, :, None] * w2a[:, None, :]).flatten(1)
    right = (w1b[:, None, :] * w2b[None, :, :]).flatten(0, 1)
    return _Product(left, right, rank, kernel)


def _lokr(tensors: Tensors) -> _Product:
    left1, right1, rank1 = _kron_factor(tensors, "lokr_w1")
    left2, right2, rank2 = _kron_factor(tensors, "lokr_w2")
    kernel = _lokr_kernel(tensors)
    rank, scaled = rank1 or rank2 or 1, bool(rank1 or rank2)  # LyCORIS: two full factors have scale 1, whatever the alpha
    rows, columns = left1.shape[0] * left2.shape[0], right1.shape[1] * right2.shape[1]
    if left1.shape[1] * left2.shape[1] >= min(rows, columns):
        product = _dense(_kron(left1 @ right1, left2 @ right2), rank, kernel)
        return _Product(product.left, product.right, rank, kernel, scaled)
    return _Product(_kron(left1, left2), _kron(right1, right2), rank, kernel, scaled)


def _full(tensors: Tensors) -> _Product:
    whole = tensors["diff"]
    if whole.ndim not in (2, 4):
        raise BrokenModule("diff", f"has {whole.ndim} dimensions, expected 2 or 4")
    return _Product(*_split(whole.flatten(1)), 1, tuple(whole.shape[2:]), scaled=False)


def _kron_factor(tensors: Tensors, name: str) -> tuple[Tensor, Tensor, int | None]:
    """Returns one Kronecker factor as left @ right, and its stored rank (None if it is stored as a full matrix)."""
    if name in tensors:
        if extra := sorted(tensors.keys() & {f"{name}_a", f"{name}_b"}):
            raise BrokenModule(extra[0], f"does not belong beside {name}")
        whole = tensors[name].flatten(1)
        return *_split(whole), None
    a, b = _need(tensors, f"{name}_a", f"{name}_b")
    if name == "lokr_w2" and "lokr_t2" in tensors:
        return a.T, _tucker("lokr_t2", tensors["lokr_t2"], b), b.shape[0]
    left, right = a.flatten(1), b.flatten(1)
    _check_product(f"{name}_b", left, right)
    return left, right, right.shape[0]


def _kron(first: Tensor, second: Tensor) -> Tensor:
    # torch.kron (2.14) fails on the transpose of a matrix with one column.
    rows, columns = first.shape[0] * second.shape[0], first.shape[1] * second.shape[1]
    return (first[:, None, :, None] * second[None, :, None, :]).reshape(rows, columns)


def _lokr_kernel(tensors: Tensors) -> tuple[int, ...] | None:
    for name in ("lokr_t2", "lokr_w2", "lokr_w2_b"):
        if name in tensors and tensors[name].ndim == 4:
            return tuple(tensors[name].shape[2:])
    return None


def _tucker(suffix: str, core: Tensor, inner: Tensor) -> Tensor:
    """Returns core (r, q, kh, kw) contracted with inner (q, in), shape (r, in·kh·kw)."""
    if core.ndim != 4 or inner.ndim != 2 or core.shape[1] != inner.shape[0]:
        raise BrokenModule(suffix, f"shape {tuple(core.shape)} does not multiply with {tuple(inner.shape)}")
    return torch.einsum("mnhw,ni->mihw", core, inner).flatten(1)


def _matrix(suffix: str, tensor: Tensor) -> Tensor:
    if tensor.ndim not in (2, 4) or any(n != 1 for n in tensor.shape[2:]):
        raise BrokenModule(suffix, f"shape {tuple(tensor.shape)} is not a matrix")
    return tensor.flatten(1)


def _check_product(suffix: str, left: Tensor, right: Tensor) -> None:
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise BrokenModule(suffix, f"shapes do not multiply: {tuple(left.shape)} @ {tuple(right.shape)}")


def _split(whole: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a matrix as two factors: itself and an identity of its smaller dimension."""
    rows, columns = whole.shape
    return (whole, torch.eye(columns)) if columns <= rows else (torch.eye(rows), whole)


def _dense(delta: Tensor, rank: int, kernel: tuple[int, ...] | None) -> _Product:
    return _Product(*_split(delta), rank, kernel)


def _weight_shape(path: str, product: _Product) -> tuple[int, ...]:
    out, fan_in = product.left.shape[0], product.right.shape[1]
    kernel = kernel_size(path) if product.kernel is None else product.kernel
    positions = math.prod(kernel)
    if len(kernel) not in (0, 2) or fan_in % positions:
        raise BrokenModule("down", f"{fan_in} columns do not fill a convolution with kernel {kernel}")
    return (out, fan_in // positions, *kernel)


_KINDS = {"LoRA": _lora, "LoHa": _loha, "LoKr": _lokr, "full": _full}
_SUFFIXES = {"LoRA": LORA, "LoHa": LOHA, "LoKr": LOKR, "full": FULL}
