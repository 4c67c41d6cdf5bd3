"""Factors: one module's low-rank change in canonical form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factors:
    """The change ΔW = scale · up @ down of one base weight.

    Attributes:
        up: (out, rank), fp16, bf16 or fp32, as the file has it; whoever computes with it converts.
        down: (rank, fan_in), likewise, where fan_in = in for a linear layer and in · kh · kw for a convolution.
        alpha: the file's alpha; the scale is alpha / rank.
        shape: shape of the base weight, (out, in) or (out, in, kh, kw).
    """

    up: Tensor
    down: Tensor
    alpha: float
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of columns of ``up``."""
        return int(self.up.shape[1])

    @property
    def scale(self) -> float:
        """alpha / rank, what the product of the factors is multiplied with."""
        return self.alpha / self.rank

    def delta(self) -> Tensor:
        """ΔW in fp32, of the base weight's shape."""
        return (self.scale * (self.up.float() @ self.down.float())).reshape(self.shape)

    def norm(self) -> float:
        """Frobenius norm of ΔW, from the factors' Gram matrices alone."""
        up, down = self.up.double(), self.down.double()
        squared = ((up.T @ up) * (down @ down.T)).sum()
        return abs(self.scale) * float(torch.sqrt(squared.clamp(min=0)))
