"""The interface of an objective: what it reads from the baselines, measures of a candidate's pictures, and contributes to the score.

An objective is one class in one file and one entry of ``objectives.table.OBJECTIVES``. Reference, measurement and comparison are
apart, because they happen at different times: the reference is computed once per prompt set, the measurement once per candidate, and the
comparison once for all prompts and once more for all bootstrap resamples of the prompts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

JOINT = -1
"""Index in place of a source for prompts that ask for all sources."""
EMBEDDINGS = "embeddings"
"""Name of the feature that the run's embedder computes: unit vectors, float32, (n, d)."""

Reference = TypeVar("Reference")
Measurement = TypeVar("Measurement")


@dataclass(frozen=True)
class Pictures:
    """Pictures of one model, one per prompt, with the features that were computed of them.

    Attributes:
        images: pictures, uint8, (n, 3, height, width), in the order of the prompts.
        features: feature name → values, (n, ...); contains at least the features that the run's objectives need.
        device: device to compute with the images on; the images themselves may be on another one.
    """

    images: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def part(self, prompts: Tensor) -> Pictures:
        """Returns the pictures of some prompts, int64, (m,), with their features."""
        return Pictures(self.images[prompts], {name: values[prompts] for name, values in self.features.items()}, self.device)


@dataclass(frozen=True)
class Baselines:
    """Pictures of the base and of each source alone, for the prompts and the noise of every candidate.

    Attributes:
        base: pictures of the base; None if there is none, because full models are merged with each other.
        alone: pictures of each source alone, in the order of the sources.
        asked: index of the source that each prompt asks for, or ``JOINT`` for all of them, int64, (n,).
        texts: index of each prompt's text, int64, (n,); prompts that differ only in their seeds have equal indices.
        prompts: text of each prompt, for metrics that compare pictures with texts; empty if the caller has none.
        left_out: indices of the sources that do not count in the score, because they cannot be told from chance.
        always: indices of the sources that every prompt asks for, because they have no trigger.
    """

    base: Pictures | None
    alone: tuple[Pictures, ...]
    asked: Tensor
    texts: Tensor
    prompts: tuple[str, ...] = ()
    left_out: frozenset[int] = frozenset()
    always: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        counts = {"asked": len(self.asked), "texts": len(self.texts)} | {f"source {k}": len(p.images) for k, p in enumerate(self.alone)}
        counts |= {"base": len(self.base.images)} if self.base else {}
        if len(set(counts.values())) > 1:
            raise ValueError(f"the numbers of prompts do not match: {', '.join(f'{name} {count}' for name, count in counts.items())}")

    @property
    def all(self) -> tuple[Pictures, ...]:
        """Pictures of the base, if there is one, and of each source alone."""
        return self.alone if self.base is None else (self.base, *self.alone)

    def part(self, prompts: Tensor) -> Baselines:
        """Returns the baselines on some prompts, int64, (m,)."""
        return replace(
            self,
            base=self.base.part(prompts) if self.base else None,
            alone=tuple(pictures.part(prompts) for pictures in self.alone),
            asked=self.asked[prompts],
            texts=self.texts[prompts],
            prompts=tuple(self.prompts[i] for i in prompts.tolist()) if self.prompts else (),
        )


@dataclass(frozen=True)
class Outcome:
    """Values of one objective for one candidate, over all prompts or over every resample of the prompts.

    The leading dimensions (...) are those of the resamples: () for all prompts, (r,) for r resamples. A value that does not depend on the
    resample may lack them.

    Attributes:
        shares: share of each source that the candidate keeps, in [0, 1], (..., k); None if the objective does not measure that.
        factor: factor on the score, in (0, 1], (...); None if the objective does not change the score.
        excess: amount by which the candidate misses the objective's constraint, (...); at most 0 if it satisfies the constraint; None if
            the objective has no constraint.
        values: further values by name, each (...).
        by_source: further values of each source by name, each (..., k).
        by_pair: further values of each source where another one is asked for, by name, each (..., k, k); NaN on the diagonal.
        counted: which sources count in the score, bool, (k,); None if all do. The shares of the others are NaN.
    """

    shares: Tensor | None = None
    factor: Tensor | None = None
    excess: Tensor | None = None
    values: Mapping[str, Tensor] = field(default_factory=dict)
    by_source: Mapping[str, Tensor] = field(default_factory=dict)
    by_pair: Mapping[str, Tensor] = field(default_factory=dict)
    counted: Tensor | None = None


class Objective(ABC, Generic[Reference, Measurement]):
    """A property of a candidate's pictures, relative to those of base and sources, that takes part in the score.

    Attributes:
        name: unique name in records, columns and messages; letters, digits, ``_`` and ``-``.
        version: number to increase whenever identical pictures would be measured or scored differently.
        needs: names of the features that it reads from ``Pictures.features``; each is computed once for all objectives.
        column: whether it only adds columns to the records, so that no score depends on it.

    Example:
        An objective that multiplies the score by 1 / (1 + d) where d is the mean distance in brightness from the sources' mean:

        >>> class Brightness(Objective[Tensor, Tensor]):
        ...     name, version = "brightness", 1
        ...
        ...     def reference(self, baselines):  # mean brightness over the baselines, (n,)
        ...         return torch.stack([self.measure(pictures, None) for pictures in baselines.all]).mean(dim=0)
        ...
        ...     def measure(self, pictures, reference):  # brightness in [0, 1], (n,)
        ...         return pictures.images.double().mean(dim=(1, 2, 3)) / 255
        ...
        ...     def compare(self, measurement, reference, counts=None):
        ...         distance = weighted_mean((measurement - reference).abs(), counts)
        ...         return Outcome(factor=1 / (1 + distance), values={"distance": distance})
        >>> dark, bright = (Pictures(torch.full((2, 3, 8, 8), value, dtype=torch.uint8)) for value in (0, 255))
        >>> objective = Brightness()
        >>> reference = objective.reference(Baselines(None, (dark, bright), torch.tensor([0, 1]), torch.tensor([0, 1])))
        >>> float(objective.compare(objective.measure(dark, reference), reference).values["distance"])
        0.5
    """

    name: ClassVar[str]
    version: ClassVar[int]
    needs: ClassVar[frozenset[str]] = frozenset()
    column: ClassVar[bool] = False

    @abstractmethod
    def reference(self, baselines: Baselines) -> Reference:
        """Returns what candidates are compared with, computed once per prompt set."""

    @abstractmethod
    def measure(self, pictures: Pictures, reference: Reference) -> Measurement:
        """Returns a candidate's measurement: small statistics, per prompt where the comparison is to be resampled.

        Args:
            pictures: pictures of the candidate, for the prompts and the noise of the baselines.
            reference: reference on these prompts.
        """

    @abstractmethod
    def compare(self, measurement: Measurement, reference: Reference, counts: Tensor | None = None) -> Outcome:
        """Returns the candidate's values, from its measurement alone.

        Args:
            measurement: measurement of the candidate.
            reference: reference on the same prompts.
            counts: number of times that each prompt counts, (..., n); None counts each once. The bootstrap passes all resamples at once.
                An objective without uncertainty ignores it.
        """


def weighted_mean(values: Tensor, counts: Tensor | None = None) -> Tensor:
    """Returns the mean of a value over the prompts of every resample.

    Args:
        values: value of each prompt, (n,).
        counts: number of times that each prompt counts, (..., n), not all 0; None counts each once.

    Returns:
        Means, (...), in the dtype of the values.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([[1, 1], [2, 0]])).tolist()
        [2.0, 1.0]
    """
    if counts is None:
        return values.mean()
    weights = counts.to(values.dtype)
    return weights @ values / weights.sum(dim=-1)
