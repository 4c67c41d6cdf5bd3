"""Full models as sources: read one tensor at a time, merged over a base that they were trained from, or with each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import torch

from optimizer.adapters import clean_name
from optimizer.checkpoints.model import Model, Weights
from optimizer.checkpoints.open import open_model
from optimizer.checkpoints.streaming import DTYPES, STORED
from optimizer.errors import UsageError
from optimizer.merging import METHODS, Recipe, block_map
from optimizer.merging.models import Blend, Job
from optimizer.rendering import AnyRenderer
from optimizer.rendering.memory.oom import Note
from optimizer.rendering.prompts import Subject
from optimizer.search.config import Config
from optimizer.search.proposals.space import SearchSpace, space_of_models
from optimizer.search.sources.source import Ensemble, Mixed, Source, checked_role, unique_names


@dataclass(frozen=True)
class ModelSource(Source):
    """One full model of the run.

    Attributes:
        model: on the disk.
    """

    model: Model

    @property
    def sha256(self) -> str:
        """Hex digest of what tells the model from others."""
        return self.model.digest

    @property
    def metadata(self) -> Mapping[str, str]:
        """Nothing: models say nothing of themselves."""
        return {}

    @property
    def family(self) -> str:
        """Of its pipeline."""
        return self.model.family


@dataclass(frozen=True)
class ModelEnsemble(Ensemble):
    """Full models, together.

    Attributes:
        sources: in the order of the recipes' weights.
        base: what they were trained from; without one they merge with each other, as changes of the first.
        config: of the run.
    """

    sources: Sequence[ModelSource]
    base: Model | None
    config: Config

    def fitted(self, renderer: AnyRenderer) -> ModelEnsemble:
        """Themselves, for they were compared with the base by their headers."""
        return self

    @property
    def models(self) -> tuple[Model, ...]:
        """The sources' models."""
        return tuple(s.model for s in self.sources)

    @property
    def based(self) -> bool:
        """Whether effects are measured from a base's pictures."""
        return self.base is not None

    def space(self, budget: int) -> SearchSpace:
        """What a study of this budget searches: weights, and methods where there is a base."""
        first, config = self.models[0], self.config
        paths = [f"{part}.{name}" for part, name in first.names]
        return space_of_models(
            [s.name for s in self.sources],
            [s.sha256 for s in self.sources],
            block_map(self.sources[0].family),
            paths,
            budget=budget,
            methods=config.methods if self.based else (),
            dtype=config.dtype,
            seed=config.seed,
            anchored=not self.based,
        )

    def mixer(self, device: torch.device, note: Note | None = None) -> ModelMixer:
        """What merges them, tensor by tensor, when they are put into the pipeline."""
        return ModelMixer(self, device)

    def blend(self, recipe: Recipe, device: str | torch.device = "cpu") -> Blend:
        """The model that a recipe says, as it would be stored."""
        job = Job(self.models, base=self.base, recipe=recipe, dtype=STORED[recipe.dtype], force=self.config.force)
        return Blend(job, device)

    def only(self, source: int, device: str | torch.device = "cpu") -> Blend:
        """One model, with what does not match from the first."""
        weights = tuple(float(i == source) for i in range(len(self.sources)))
        return self.blend(Recipe(method="linear", weights=weights, dtype=self.config.dtype), device)

    @cached_property
    def apart(self) -> Sequence[str]:
        """The tensors that do not match, and are the first model's, a line each; raises BaseModelError where that is not forced."""
        return list(self.only(0).apart.values())

    def remarks(self) -> list[str]:
        """Which tensors do not match."""
        return [f"{len(self.apart)} tensors are not merged, first {self.apart[0]}"] if self.apart else []

    def export_bytes(self, space: SearchSpace) -> int:
        """Of the merged model: what is merged in its number format, the rest as the first model has it."""
        first, width = self.models[0], DTYPES[STORED[space.dtype]].itemsize
        merged = [entry for entries in first.parts.values() for entry in entries.values()]
        beside = _size(first.place) - sum(math.prod(entry.shape) * DTYPES[entry.dtype].itemsize for entry in merged)
        return sum(math.prod(entry.shape) for entry in merged) * width + max(0, beside)


class ModelMixer:
    """Candidates of full models: nothing is computed before they are drawn with.

    Args:
        ensemble: the models.
        device: of the renderer.
    """

    def __init__(self, ensemble: ModelEnsemble, device: torch.device) -> None:
        self._ensemble, self._device = ensemble, device

    def alone(self, source: int) -> Weights | None:
        """One model by itself, as far as it fits; None for the one that is loaded as the base."""
        if not source and not self._ensemble.based:
            return None
        return self._ensemble.only(source, self._device) if self._ensemble.apart else self._ensemble.models[source]

    def mixed(self, recipe: Recipe) -> Mixed:
        """The blend that a recipe says."""
        return Mixed(self._ensemble.blend(recipe, self._device), 0.0)


def load_models(config: Config) -> ModelEnsemble:
    """Open every model, read its headers, and check that they can be merged.

    Raises:
        BaseModelError: one cannot be read, or they do not fit each other, and it is not forced.
        UsageError: one is named twice, or a method cannot merge full models.
    """
    _check_methods(config)
    models = [open_model(spec) for spec in config.sources]
    for a, b in combinations(models, 2):
        if a.digest == b.digest:
            raise UsageError(f"{a.place} and {b.place} are the same model", where="--sources", remedy="name every source once")
    roles = config.roles or ("style",) * len(models)
    triggers = config.triggers or ("",) * len(models)
    names = unique_names([clean_name(model.name) for model in models])
    sources = [
        ModelSource(Subject(name, checked_role(role), trigger), model.place, model)
        for name, role, trigger, model in zip(names, roles, triggers, models, strict=True)
    ]
    found = ModelEnsemble(sources, open_model(config.base) if config.base else None, config)
    assert found.apart is not None  # compared here, before anything is loaded
    return found


def _check_methods(config: Config) -> None:
    for method in config.methods:
        if method in METHODS and METHODS[method].rank == "required":
            problem = f"{method} cuts LoRAs to a rank, which models do not have"
            raise UsageError(problem, where="--methods", remedy="leave it out")


def _size(place: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(path.stat().st_size for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file())
