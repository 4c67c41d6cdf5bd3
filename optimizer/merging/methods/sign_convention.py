"""Bases: what makes singular vectors, whose signs are arbitrary, the same everywhere."""

from __future__ import annotations

import torch
from torch import Tensor


def oriented(basis: Tensor) -> Tensor:
    """Columns turned so that the entry of greatest magnitude is positive, (b, n, k).

    An election breaks ties in favour of +, so what it elects depends on the signs of the basis that it works in.
    """
    largest = basis.gather(-2, basis.abs().argmax(dim=-2, keepdim=True))
    return torch.where(largest < 0, -basis, basis)
