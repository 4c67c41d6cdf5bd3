"""Interfaces of sources, ensembles and mixers, common to all kinds of sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol

import torch

from optimizer.adapters import Adapter
from optimizer.export import Origin
from optimizer.merging import Recipe, Router
from optimizer.rendering import AnyRenderer
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.memory.oom import Note
from optimizer.rendering.prompts import ROLES, Role, Subject
from optimizer.search.proposals.space import SearchSpace


@dataclass(frozen=True)
class Source(ABC):
    """One source of the run: its subject and its file.

    Attributes:
        subject: name, role and trigger; the name is short and unique.
        file: path of the file or folder, as located.
        role_stated: whether the user or a file states the role; otherwise it is assumed.
    """

    subject: Subject
    file: Path
    role_stated: bool = field(default=True, kw_only=True)

    @property
    def name(self) -> str:
        """Short, unique name."""
        return self.subject.name

    @property
    def origin(self) -> Origin:
        """Provenance that the files about a merge contain for this source."""
        return Origin(self.name, self.sha256, self.subject.role, self.subject.trigger, self.metadata)

    @property
    @abstractmethod
    def sha256(self) -> str:
        """SHA-256 of the content, as a hex digest."""

    @property
    @abstractmethod
    def metadata(self) -> Mapping[str, str]:
        """Metadata of the file header; untrusted."""

    @property
    @abstractmethod
    def family(self) -> str:
        """Family of the base model that the source was trained for: ``sd1``, ``sdxl``, … or ``unknown``."""

    @property
    def ranks(self) -> tuple[int, int]:
        """Lowest and highest rank of its modules; (0, 0) if the source has no ranks."""
        return 0, 0


RouterLookup = Callable[[str], Router]
"""Returns the router with a SHA-256."""


class Mixer(Protocol):
    """Creates candidates."""

    def alone(self, source: int) -> Candidate | None:
        """Returns a source without merging; None if the source is the base itself."""

    def mixed(self, recipe: Recipe) -> tuple[Candidate, float]:
        """Returns the merge that a recipe describes, with weights as its file stores them, so that what is scored is what is exported.

        Returns:
            The candidate, and its compression error relative to ‖ΔW‖, in [0, 1].

        Raises:
            RecipeError: the recipe does not fit the sources.
        """


class Ensemble(ABC):
    """The sources of a run.

    Attributes:
        sources: sources, in the order of the recipes' weights.
    """

    sources: Sequence[Source]

    @property
    def adapters(self) -> Sequence[Adapter]:
        """Adapters that must match the base's family, which is checked before the base is loaded."""
        return ()

    @property
    def based(self) -> bool:
        """Whether effects are measured against a base; otherwise against the other sources."""
        return True

    @abstractmethod
    def fitted(self, renderer: AnyRenderer) -> Ensemble:
        """Returns the ensemble fitted to the base's weights; raises BaseModelError if a source does not fit."""

    @abstractmethod
    def space(self, budget: int) -> SearchSpace:
        """Returns the search space of a study with this budget; raises UsageError if the configuration leaves none."""

    @abstractmethod
    def mixer(self, device: torch.device, note: Note | None = None, router: RouterLookup | None = None) -> Mixer:
        """Returns a mixer.

        Args:
            device: device of the renderer.
            note: receives a message if memory is insufficient.
            router: returns the router that a recipe names as its calibration; None if the run has no routers.
        """

    @abstractmethod
    def remarks(self) -> list[str]:
        """Returns warnings about the sources for the user, one line each."""

    def notes(self) -> list[str]:
        """Returns notes about the sources for the user, one line each."""
        return []

    @abstractmethod
    def export_bytes(self, space: SearchSpace) -> int:
        """Returns the size of the largest possible export, including temporary files beside it, in bytes."""


def checked_role(role: str) -> Role:
    """Returns the role with this name."""
    return next(known for known in ROLES if known == role)


def unique_names(names: Sequence[str]) -> list[str]:
    """Returns the names, with duplicates numbered: ``hero``, ``hero-2``."""
    unique: list[str] = []
    for name in names:
        unique.append(next(n for n in (name if i == 1 else f"{name}-{i}" for i in count(1)) if n not in unique))
    return unique
