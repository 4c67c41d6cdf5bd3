"""OFT and BOFT: orthogonal matrices that rotate the outputs (LyCORIS, sd-scripts) or inputs (PEFT) of a weight; W′ in fp64."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from optimizer.adapters.base_dependent.module import Based, along, number, setting
from optimizer.adapters.base_dependent.rotations import blockwise, butterfly, cayley, neumann
from optimizer.adapters.expand import BrokenModule

_MOST_TERMS = 100  # limits the computing time that an untrusted file can cause; far above practical values


def oft_lycoris(module: Based) -> Tensor:
    """Returns W′ = s ⊙ RᵀW for OFT, or s ⊙ R…W for BOFT, with Q = b − bᵀ and R = (I + Q)(I − Q)⁻¹ for blocks b; s is ``rescale``.

    ‖Q‖ over all blocks is at most alpha · out; alpha = 0 means no constraint. ``oft_blocks`` is (blocks, b, b) for OFT and
    (stages, blocks, b, b) for BOFT. Tensors of sd-scripts' own OFT (``networks/oft.py``) have this meaning if alpha is not 0.
    """
    blocks, rows = module.tensors["oft_blocks"], module.weight.flatten(1)
    if blocks.ndim not in (3, 4) or blocks.shape[-1] != blocks.shape[-2]:
        raise BrokenModule("oft_blocks", f"shape {tuple(blocks.shape)} is not a list of square blocks")
    skew = blocks - blocks.mT
    bound, norm = number(module, "alpha") * rows.shape[0] if "alpha" in module.tensors else 0.0, float(skew.norm())
    rotations = cayley(skew * (bound / norm) if 0 < bound < norm else skew)
    if blocks.ndim == 3:
        rows = blockwise("oft_blocks", rotations.mT, rows)
    else:
        half = blocks.shape[-1] // 2
        for stage, rotation in enumerate(rotations):
            rows = butterfly("oft_blocks", rotation, rows, 2**stage * half, 1)
    return rows * along("rescale", module.tensors["rescale"], rows, 0) if "rescale" in module.tensors else rows


def oft_peft(module: Based) -> Tensor:
    """Returns W′ = WRᵀ. ``oft_R`` is (blocks, b(b−1)/2): upper triangles of skew-symmetric Q; a single row is shared by all blocks.

    R = (I − Q)(I + Q)⁻¹, or, with ``use_cayley_neumann``, a truncated Neumann series for the inverse.
    """
    packed, (columns, *kernel) = module.tensors["oft_R"], module.weight.shape[1:]
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


def _projected(module: Based, skew: Tensor) -> Tensor:
    """Returns Q projected as in constrained OFT: block norm at most ``eps`` / √blocks. PEFT saves the unprojected Q."""
    if not setting(module, "coft", False):
        return skew
    bound = setting(module, "eps", 6e-5) / math.sqrt(skew.shape[0])
    norm = torch.linalg.vector_norm(skew, dim=(1, 2), keepdim=True)
    return torch.where(norm <= bound, skew, bound * skew / norm)


def _peft_rotation(module: Based, skew: Tensor) -> Tensor:
    if not setting(module, "use_cayley_neumann", True):
        return cayley(-skew)
    version = re.match(r"(\d+)\.(\d+)", str(module.settings.get("peft_version")))
    if module.settings and (version is None or tuple(map(int, version.groups())) < (0, 18)):
        raise BrokenModule("oft_R", "was written by PEFT before 0.18, whose Cayley-Neumann series differs")
    terms = int(setting(module, "num_cayley_neumann_terms", 5))
    if not 1 <= terms <= _MOST_TERMS:
        raise BrokenModule("oft_R", f"num_cayley_neumann_terms is {terms}, not a number from 1 to {_MOST_TERMS}")
    return neumann(skew, terms)


def boft_peft(module: Based) -> Tensor:
    """Returns W′ = s ⊙ WRᵀ with s = ``boft_s``, R = R_N … R_1 from ``boft_R`` (stages, blocks, b, b), and Q = (b − bᵀ)/2."""
    blocks, rows = module.tensors["boft_R"], module.weight.flatten(1).T
    if blocks.ndim != 4 or blocks.shape[-1] != blocks.shape[-2]:
        raise BrokenModule("boft_R", f"shape {tuple(blocks.shape)} is not a list of square blocks for each stage")
    rotations = cayley((blocks.mT - blocks) / 2)
    # The first stage has no permutation; if it is the only stage, the block size may be odd.
    rows = blockwise("boft_R", rotations[0], rows)
    for stage, rotation in enumerate(rotations[1:], start=1):
        rows = butterfly("boft_R", rotation, rows, 2**stage, blocks.shape[-1] // 2)
    return rows.T * along("boft_s", module.tensors["boft_s"], rows.T, 0)
