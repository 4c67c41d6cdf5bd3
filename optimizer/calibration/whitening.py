"""Whitening: coordinates of a router in which all entries change the module's output equally strongly.

The output of a module is up_cat · R · z. With UᵀU = up_catᵀ·up_cat and G = LLᵀ = E[z·zᵀ], the matrix P = U·R·L has E‖up_cat·R·z‖² = ‖P‖²:
plain gradient descent on P is preconditioned like natural-gradient methods with Kronecker factors (K-FAC, arXiv 1503.05671) on R.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_DAMPING = 1e-3


@dataclass(frozen=True)
class Whitening:
    """R = left · P · right.

    Attributes:
        left, right: (Σr, Σr), fp32.
    """

    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, up: Tensor, moments: Tensor) -> Whitening:
        """Returns the coordinates in which the identity router has rows of length 1 on average.

        Args:
            up: up_cat, (out, Σr).
            moments: second moments of z, (Σr, Σr).
        """
        own = up.double().cpu()
        left, right = _root(own.T @ own), _root(moments.double())
        size = (left.T @ right).square().sum(dim=1).mean().sqrt()
        return cls((size * _inverse(left).T).float(), _inverse(right).float())

    def router(self, inner: Tensor) -> Tensor:
        """Returns R of coordinates P."""
        return self.left @ inner @ self.right

    def coordinates(self, router: Tensor) -> Tensor:
        """Returns the coordinates P of R."""
        full = torch.diag(router) if router.ndim == 1 else router
        solved = torch.linalg.solve(self.left.double(), full.double())
        inner: Tensor = torch.linalg.solve(self.right.double().T, solved.T).T.float()
        return inner


def _root(matrix: Tensor) -> Tensor:
    """Returns the Cholesky factor of a positive semi-definite matrix, damped."""
    root: Tensor = torch.linalg.cholesky(matrix + _DAMPING * matrix.diagonal().mean().clamp(min=1e-12) * torch.eye(len(matrix)).double())
    return root


def _inverse(lower: Tensor) -> Tensor:
    inverse: Tensor = torch.linalg.solve_triangular(lower, torch.eye(len(lower)).double(), upper=False)
    return inverse
