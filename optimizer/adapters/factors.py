"""Factors: the low-rank change of one module in canonical form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factors:
    """The change ΔW = scale · up @ down of one base weight.

    Attributes:
        up: (out, rank), in the stored dtype fp16, bf16 or fp32; callers convert it before they compute.
        down: (rank, fan_in), fp16, bf16 or fp32, where fan_in = in for a linear layer and in · kh · kw for a convolution.
        alpha: numerator of the scale alpha / rank.
        shape: shape of the base weight, (out, in) or (out, in, kh, kw).
    """

    up: Tensor
    down: Tensor
    alpha: float
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Rank of the factors: the number of columns of ``up``."""
        return int(self.up.shape[1])

    @property
    def scale(self) -> float:
        """Scale of the product of the factors, alpha / rank."""
        return self.alpha / self.rank

    def delta(self) -> Tensor:
        """Returns ΔW in fp32, in the base weight's shape."""
        return (self.scale * (self.up.float() @ self.down.float())).reshape(self.shape)

    def norm(self) -> float:
        """Returns the Frobenius norm of ΔW, computed in fp64 from the Gram matrices of the factors."""
        up, down = self.up.double(), self.down.double()
        squared = ((up.T @ up) * (down @ down.T)).sum()
        return abs(self.scale) * float(torch.sqrt(squared.clamp(min=0)))
