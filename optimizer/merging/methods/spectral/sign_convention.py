"""Sign convention for singular vectors, whose signs are arbitrary, so that results are reproducible."""

from __future__ import annotations

import torch
from torch import Tensor


def oriented(basis: Tensor) -> Tensor:
    """Returns the columns with signs chosen so that the entry of largest magnitude is positive, (b, n, k).

    Sign election breaks ties in favour of +, so its result depends on the signs of the basis.
    """
    largest = basis.gather(-2, basis.abs().argmax(dim=-2, keepdim=True))
    return torch.where(largest < 0, -basis, basis)
