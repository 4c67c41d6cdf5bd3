"""Rotations: orthogonal matrices from skew-symmetric ones, and products with block-diagonal matrices and butterflies."""

from __future__ import annotations

import torch
from torch import Tensor

from optimizer.adapters.expand import BrokenModule


def cayley(skew: Tensor) -> Tensor:
    """(I + Q)(I − Q)⁻¹, orthogonal, for skew-symmetric Q (…, b, b)."""
    identity = torch.eye(skew.shape[-1], dtype=skew.dtype)
    rotation: Tensor = torch.linalg.solve(identity - skew, identity + skew)
    return rotation


def neumann(skew: Tensor, terms: int) -> Tensor:
    """I + 2Q + 2Q² + … + Qᵗ with t = terms − 1, but no less than 3 from three terms on; two terms are I + 2Q."""
    power = result = torch.eye(skew.shape[-1], dtype=skew.dtype).expand_as(skew)
    top = {1: 0, 2: 1, 3: 3}.get(terms, terms - 1)
    for degree in range(1, top + 1):
        power = power @ skew
        result = result + (1 if degree == top > 1 else 2) * power
    return result


def blockwise(role: str, blocks: Tensor, rows: Tensor) -> Tensor:
    """The block-diagonal matrix of (blocks, b, b), times (blocks·b, n)."""
    count, size = blocks.shape[:2]
    if count * size != rows.shape[0]:
        raise BrokenModule(role, f"{count} blocks of {size} do not fill the weight's side of {rows.shape[0]}")
    product: Tensor = blocks @ rows.reshape(count, size, -1)
    return product.reshape(rows.shape)


def butterfly(role: str, blocks: Tensor, rows: Tensor, pairs: int, grain: int) -> Tensor:
    """One stage: bring ``grain`` rows beside their partners, pairs · grain rows away, apply the blocks, and bring all back."""
    span = 2 * pairs * grain
    if blocks.shape[-1] % 2 or not span or rows.shape[0] % span:
        raise BrokenModule(role, f"blocks of {blocks.shape[-1]} make no butterfly of this many stages over {rows.shape[0]}")
    order = torch.arange(rows.shape[0]).reshape(-1, 2, pairs, grain).transpose(1, 2).flatten()
    return blockwise(role, blocks, rows[order])[order.argsort()]
