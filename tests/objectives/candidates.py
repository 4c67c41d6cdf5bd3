"""What the objectives of preservation and leakage say of embeddings, and bootstrap samples of what is kept."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from objectives import (
    EMBEDDINGS,
    JOINT,
    AnyObjective,
    Effects,
    Moments,
    Pictures,
    PreservationObjective,
    SeparationObjective,
    mean_shares,
    resamples,
    shares,
)


class Kept(NamedTuple):
    """What a candidate keeps of one source."""

    own: float
    joint: float
    leakage: float
    mean: float


def preservation(merged: Tensor, effects: Effects) -> list[Kept]:
    """What a candidate with these embeddings, (n, d), keeps of every source."""
    pictures = Pictures(torch.zeros(len(merged), 3, 1, 1, dtype=torch.uint8), {EMBEDDINGS: merged})
    objectives: tuple[AnyObjective, ...] = (PreservationObjective(), SeparationObjective())
    found, separate = (objective.compare(objective.measure(pictures, effects), effects) for objective in objectives)
    assert found.shares is not None
    return [Kept(*numbers) for numbers in torch.stack([*found.by_source.values(), *separate.by_source.values(), found.shares]).T.tolist()]


def kept(reduced: Moments, counts: Tensor | None = None) -> Tensor:
    """The mean of own and joint shares over every resample, (..., k)."""
    return mean_shares(*shares(reduced, counts))


def bootstrap(reduced: Moments, *, count: int, seed: int = 0) -> Tensor:
    """What is kept of every source in every resample, (count, k)."""
    return kept(reduced, resamples(asked_of(reduced), count=count, seed=seed))


def asked_of(reduced: Moments) -> Tensor:
    """Index of the source that each prompt asks for, if each asks for one or for all, (n,)."""
    group = reduced.groups.int().argmax(dim=0)
    return torch.where(group == len(reduced.groups) - 1, JOINT, group)
