"""Order statistics: the k-th largest magnitude of a matrix."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.float32]]

# Size of the sample that narrows the search; smallest module for which it is drawn; entries processed at a time.
_SAMPLE, _LARGE, _PART = 2**13, 2**16, 2**16
_DEVIATIONS = 4


def ranked(magnitudes: Tensor, place: int) -> Tensor:
    """Returns the place-th largest magnitude, counted from 1, of each module: (b, entries) → (b, 1, 1). May reorder the input."""
    index = magnitudes.shape[1] - place
    if magnitudes.device.type == "cpu":
        found = torch.tensor([_selected(module, index) for module in magnitudes.numpy()])
    else:
        found = torch.kthvalue(magnitudes, index + 1, dim=1).values
    return found[:, None, None]


def _selected(values: Array, index: int) -> float:
    """Returns the entry at an index of the ascending order; several times faster than ``torch.kthvalue``."""
    low, high = _bracket(values, index) if values.size >= _LARGE else (-np.inf, np.inf)
    below, within = 0, []
    for start in range(0, values.size, _PART):
        part = values[start : start + _PART]
        reached = part >= low
        below += part.size - int(np.count_nonzero(reached))
        within.append(part[reached & (part <= high)])
    few, place = np.concatenate(within), index - below
    if not 0 <= place < few.size:  # the bracket is wrong (it holds with high probability only): search all values
        few, place = values, index
    few.partition(place)
    return float(few[place])


def _bracket(values: Array, index: int) -> tuple[float, float]:
    """Returns two values that bracket the entry with high probability, estimated from a sample (Floyd & Rivest 1975)."""
    sample = np.sort(values[:: values.size // _SAMPLE | 1])  # an odd step samples all columns of a matrix
    share = index / values.size
    place, margin = share * sample.size, _DEVIATIONS * sqrt(sample.size * share * (1 - share)) + 1
    low, high = int(place - margin), int(place + margin) + 1
    return (float(sample[low]) if low > 0 else -np.inf), (float(sample[high]) if high < sample.size else np.inf)
