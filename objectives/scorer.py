"""The scorer: the objectives of a table with their references on one prompt set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from objectives.objective import Baselines, Objective, Pictures
from objectives.score import Outcomes

AnyObjective = Objective[Any, Any]
Measurements = Mapping[str, object]
"""Measurements of one candidate by the name of the objective."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Scorer:
    """Measures and compares the pictures of candidates by all objectives of a table.

    Attributes:
        objectives: objectives, in the order of the table.
        references: reference of each objective.

    Example:
        >>> import torch
        >>> from objectives.table import OBJECTIVES
        >>> from objectives.score import score
        >>> def pictures(seed):
        ...     generator = torch.Generator().manual_seed(seed)
        ...     images = torch.randint(256, (3, 3, 16, 16), generator=generator, dtype=torch.uint8)
        ...     return Pictures(images, {"embeddings": torch.nn.functional.normalize(torch.randn(3, 8, generator=generator), dim=1)})
        >>> baselines = Baselines(pictures(0), (pictures(1), pictures(2)), torch.tensor([0, 1, -1]), torch.arange(3))
        >>> scorer = Scorer.from_baselines(OBJECTIVES, baselines)
        >>> float(score(scorer.compare(scorer.measure(baselines.base))))  # what changes nothing scores 0
        0.0
    """

    objectives: tuple[AnyObjective, ...]
    references: tuple[Any, ...]

    @classmethod
    def from_baselines(cls, objectives: Sequence[AnyObjective], baselines: Baselines) -> Scorer:
        """Returns the scorer with the references of all objectives."""
        return cls(tuple(objectives), tuple(objective.reference(baselines) for objective in objectives))

    def measure(self, pictures: Pictures) -> Measurements:
        """Returns a candidate's measurements.

        Args:
            pictures: pictures of the candidate, for the prompts and the noise of the baselines, with all features that the objectives need.
        """
        return {o.name: o.measure(pictures, reference) for o, reference in zip(self.objectives, self.references, strict=True)}

    def compare(self, measurements: Measurements, counts: Tensor | None = None) -> Outcomes:
        """Returns a candidate's outcomes.

        Args:
            measurements: measurements of the candidate by this scorer.
            counts: number of times that each prompt counts, (..., n); None counts each once.
        """
        pairs = zip(self.objectives, self.references, strict=True)
        return {o.name: o.compare(measurements[o.name], reference, counts) for o, reference in pairs}


def needed_features(objectives: Iterable[AnyObjective]) -> frozenset[str]:
    """Returns the names of all features that the objectives need.

    Example:
        >>> from objectives.table import OBJECTIVES
        >>> sorted(needed_features(OBJECTIVES))
        ['embeddings']
    """
    return frozenset(name for objective in objectives for name in objective.needs)


def check_objectives(objectives: Sequence[AnyObjective], features: Iterable[str]) -> None:
    """Checks that the objectives of a table can be used together.

    Args:
        objectives: objectives of the table.
        features: names of the features that can be computed.

    Raises:
        ValueError: a name is invalid or occurs twice, or a feature that an objective needs cannot be computed.

    Example:
        >>> from objectives.table import OBJECTIVES
        >>> check_objectives(OBJECTIVES, ["embeddings"])
    """
    known = set(features)
    names = [objective.name for objective in objectives]
    for objective in objectives:
        if not _NAME.fullmatch(objective.name):
            raise ValueError(f"{objective.name!r} does not name an objective: use letters, digits, _ and -")
        if names.count(objective.name) > 1:
            raise ValueError(f"two objectives have the name {objective.name}: rename one of them")
        if missing := objective.needs - known:
            problem = f"the objective {objective.name} needs {', '.join(sorted(missing))}, which cannot be computed"
            raise ValueError(f"{problem}: choose from {', '.join(sorted(known))}")
