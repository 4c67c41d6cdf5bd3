"""Rotations: orthogonal matrices from skew-symmetric ones, and products with block-diagonal and butterfly matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.adapters.expand import BrokenModule


def cayley(skew: Tensor) -> Tensor:
    """Returns (I + Q)(I − Q)⁻¹, orthogonal, for skew-symmetric Q (…, b, b)."""
    identity = torch.eye(skew.shape[-1], dtype=skew.dtype)
    rotation: Tensor = torch.linalg.solve(identity - skew, identity + skew)
    return rotation


def neumann(skew: Tensor, terms: int) -> Tensor:
    """Returns I + 2Q + 2Q² + … + Qᵗ with t = max(terms − 1, 3) for terms ≥ 3; I + 2Q for two terms, I for one."""
    power = result = torch.eye(skew.shape[-1], dtype=skew.dtype).expand_as(skew)
    top = {1: 0, 2: 1, 3: 3}.get(terms, terms - 1)
    for degree in range(1, top + 1):
        power = power @ skew
        result = result + (1 if degree == top > 1 else 2) * power
    return result


def blockwise(suffix: str, blocks: Tensor, rows: Tensor) -> Tensor:
    """Returns the product of the block-diagonal matrix with blocks (blocks, b, b) and rows (blocks·b, n)."""
    count, size = blocks.shape[:2]
    if count * size != rows.shape[0]:
        raise BrokenModule(suffix, f"{count} blocks of {size} do not fill the weight's side of {rows.shape[0]}")
    product: Tensor = blocks @ rows.reshape(count, size, -1)
    return product.reshape(rows.shape)


def butterfly(suffix: str, blocks: Tensor, rows: Tensor, pairs: int, grain: int) -> Tensor:
    """Returns one butterfly stage: pairs ``grain`` rows with those pairs · grain rows away, applies the blocks, undoes the permutation."""
    span = 2 * pairs * grain
    if blocks.shape[-1] % 2 or not span or rows.shape[0] % span:
        raise BrokenModule(suffix, f"blocks of {blocks.shape[-1]} make no butterfly of this many stages over {rows.shape[0]}")
    order = torch.arange(rows.shape[0]).reshape(-1, 2, pairs, grain).transpose(1, 2).flatten()
    return blockwise(suffix, blocks, rows[order])[order.argsort()]
