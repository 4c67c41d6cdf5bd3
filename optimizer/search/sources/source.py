"""Sources, and what a run does with them, whichever kind they are of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import torch

from optimizer.adapters import Adapter
from optimizer.export import Origin
from optimizer.merging import Recipe
from optimizer.rendering import AnyRenderer
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.memory.oom import Note
from optimizer.rendering.prompts import ROLES, Role, Subject
from optimizer.search.proposals.space import SearchSpace


@dataclass(frozen=True)
class Source(ABC):
    """One source of the run: what asks for it, and where it came from.

    Attributes:
        subject: with its short, unique name.
        file: the file, or the folder, as it was found.
    """

    subject: Subject
    file: Path

    @property
    def name(self) -> str:
        """Its short, unique name."""
        return self.subject.name

    @property
    def origin(self) -> Origin:
        """What the files about a merge say of it."""
        return Origin(self.name, self.sha256, self.subject.role, self.subject.trigger, self.metadata)

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Hex digest of what it holds."""

    @property
    @abstractmethod
    def metadata(self) -> Mapping[str, str]:
        """What its file's header says of itself; untrusted."""

    @property
    @abstractmethod
    def family(self) -> str:
        """Of the base models that it is for: ``sd1``, ``sdxl``, … or ``unknown``."""

    @property
    def ranks(self) -> tuple[int, int]:
        """Lowest and highest rank of its modules; 0 and 0 for what has none."""
        return 0, 0


@dataclass(frozen=True)
class Mixed:
    """A candidate, and how near it comes to what its method computes.

    Attributes:
        candidate: as its file would hold it, so that what is scored is what is shipped.
        error: what was lost by compression, relative to ‖ΔW‖, in [0, 1].
    """

    candidate: Candidate
    error: float


class Mixer(Protocol):
    """Makes candidates."""

    def alone(self, source: int) -> Candidate | None:
        """One source by itself; None where that is the base as it is."""

    def mixed(self, recipe: Recipe) -> Mixed:
        """What the recipe says; raises RecipeError where it does not fit the sources."""


class Ensemble(ABC):
    """The sources of a run, together.

    Attributes:
        sources: in the order of the recipes' weights.
    """

    sources: Sequence[Source]

    @property
    def adapters(self) -> Sequence[Adapter]:
        """Those that have to be for the base's family, which is checked before it is loaded."""
        return ()

    @property
    def based(self) -> bool:
        """Whether there is a base that effects are measured from; else it is the other sources."""
        return True

    @abstractmethod
    def fitted(self, renderer: AnyRenderer) -> Ensemble:
        """The same as they fit the base's weights; raises BaseModelError where one does not."""

    @abstractmethod
    def space(self, budget: int) -> SearchSpace:
        """What a study of this budget searches."""

    @abstractmethod
    def mixer(self, device: torch.device, note: Note | None = None) -> Mixer:
        """What makes candidates for a renderer that computes there; ``note`` is told where memory does not do."""

    @abstractmethod
    def remarks(self) -> list[str]:
        """What users should know of their sources before the run, one line each."""

    @abstractmethod
    def export_bytes(self, space: SearchSpace) -> int:
        """Size of the largest result that may be exported, and of what is written beside it meanwhile."""


def checked_role(role: str) -> Role:
    """The role of this name."""
    return next(known for known in ROLES if known == role)


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, where several are one numbered: ``hero``, ``hero-2``."""
    unique: list[str] = []
    for name in names:
        unique.append(next(n for n in (name if i == 1 else f"{name}-{i}" for i in count(1)) if n not in unique))
    return unique
