"""Selection: the magnitude that a given number of entries reach."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.float32]]

# A sample of so many entries narrows the search, for modules several times as large; the part of them that is looked at at a time.
_SAMPLE, _LARGE, _PART = 2**13, 2**16, 2**16
_DEVIATIONS = 4


def ranked(magnitudes: Tensor, place: int) -> Tensor:
    """The place-th largest magnitude, counted from 1, of each module: (b, entries), which may be reordered, → (b, 1, 1)."""
    index = magnitudes.shape[1] - place
    if magnitudes.device.type == "cpu":
        found = torch.tensor([_selected(module, index) for module in magnitudes.numpy()])
    else:
        found = torch.kthvalue(magnitudes, index + 1, dim=1).values
    return found[:, None, None]


def _selected(values: Array, index: int) -> float:
    """The entry that would stand at the index if the values were sorted; several times faster than ``torch.kthvalue``."""
    low, high = _bracket(values, index) if values.size >= _LARGE else (-np.inf, np.inf)
    below, within = 0, []
    for start in range(0, values.size, _PART):
        part = values[start : start + _PART]
        reached = part >= low
        below += part.size - int(np.count_nonzero(reached))
        within.append(part[reached & (part <= high)])
    few, place = np.concatenate(within), index - below
    if not 0 <= place < few.size:  # the sample misled; what it promises, it promises with high probability only
        few, place = values, index
    few.partition(place)
    return float(few[place])


def _bracket(values: Array, index: int) -> tuple[float, float]:
    """Two values between which the entry very probably lies, as their places in a sample tell (Floyd & Rivest 1975)."""
    sample = np.sort(values[:: values.size // _SAMPLE | 1])  # an odd step runs through the columns of a matrix
    share = index / values.size
    place, margin = share * sample.size, _DEVIATIONS * sqrt(sample.size * share * (1 - share)) + 1
    low, high = int(place - margin), int(place + margin) + 1
    return (float(sample[low]) if low > 0 else -np.inf), (float(sample[high]) if high < sample.size else np.inf)
