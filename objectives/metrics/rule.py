"""Rules: what the value of a metric does in a search. Without a rule it is a column; else a term of the score, or a constraint."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Term:
    """The metric multiplies the score by t^weight, where t in (0, 1] is its ``quality``.

    Attributes:
        weight: exponent, greater than 0.
    """

    weight: float


@dataclass(frozen=True)
class Constraint:
    """The metric must not be below a bound, or not above it.

    Attributes:
        bound: the bound, which itself is allowed.
        at_least: whether values below the bound violate the constraint; otherwise those above it.
    """

    bound: float
    at_least: bool

    def excess(self, value: Tensor) -> Tensor:
        """Returns the amount by which values miss the bound, (...) → (...); at most 0 where they satisfy it.

        Example:
            >>> import torch
            >>> Constraint(0.5, at_least=True).excess(torch.tensor([0.25, 0.75])).tolist()
            [0.25, -0.25]
        """
        return self.bound - value if self.at_least else value - self.bound


Rule = Term | Constraint | None
"""Rule of a metric; None for a column that changes nothing."""
