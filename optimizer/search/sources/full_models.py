"""Full model sources: read one tensor at a time, merged over a common base model or with each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import torch

from optimizer.adapters import clean_name
from optimizer.adapters.files.dtypes import DTYPES, SAFETENSORS_DTYPES, TORCH_DTYPES
from optimizer.checkpoints.model import Model, Weights
from optimizer.checkpoints.open import open_model
from optimizer.errors import UsageError
from optimizer.merging import METHODS, Recipe, block_map
from optimizer.merging.models import Blend, Job
from optimizer.rendering import AnyRenderer
from optimizer.rendering.memory.oom import Note
from optimizer.rendering.prompts import Subject
from optimizer.search.config import Config
from optimizer.search.proposals.space import SearchSpace, space_of_models
from optimizer.search.sources.source import Ensemble, RouterLookup, Source, checked_role, unique_names


@dataclass(frozen=True)
class ModelSource(Source):
    """One full model of the run.

    Attributes:
        model: model files on disk.
    """

    model: Model

    @property
    def sha256(self) -> str:
        """Digest that identifies the model, hexadecimal."""
        return self.model.digest

    @property
    def metadata(self) -> Mapping[str, str]:
        """Empty metadata, because models have none."""
        return {}

    @property
    def family(self) -> str:
        """Family of the model's pipeline."""
        return self.model.family


@dataclass(frozen=True)
class ModelEnsemble(Ensemble):
    """The full models of a run.

    Attributes:
        sources: sources, in the order of the recipes' weights.
        base: model that the sources were trained from; if None, they are merged with each other, as changes of the first.
        config: configuration of the run.
    """

    sources: Sequence[ModelSource]
    base: Model | None
    config: Config

    def fitted(self, renderer: AnyRenderer) -> ModelEnsemble:
        """Returns the ensemble unchanged, because its headers were already compared with the base."""
        return self

    @property
    def models(self) -> tuple[Model, ...]:
        """Models of the sources."""
        return tuple(s.model for s in self.sources)

    @property
    def based(self) -> bool:
        """Whether effects are measured against a base's pictures."""
        return self.base is not None

    def space(self, budget: int) -> SearchSpace:
        """Returns the search space of a study with this budget: weights, and methods if there is a base."""
        first, search = self.models[0], self.config.search
        paths = [f"{part}.{name}" for part, name in first.names]
        return space_of_models(
            [s.name for s in self.sources],
            [s.sha256 for s in self.sources],
            block_map(self.sources[0].family),
            paths,
            budget=budget,
            methods=search.methods if self.based else (),
            dtype=self.config.output.dtype,
            seed=search.seed,
            anchored=not self.based,
            groups=search.blocks,
        )

    def mixer(self, device: torch.device, note: Note | None = None, router: RouterLookup | None = None) -> ModelMixer:
        """Returns the mixer, which merges tensor by tensor when a candidate is loaded into the pipeline."""
        return ModelMixer(self, device)

    def blend(self, recipe: Recipe, device: str | torch.device = "cpu") -> Blend:
        """Returns the merged model that a recipe describes, in its storage dtype."""
        job = Job(
            self.models, base=self.base, recipe=recipe, dtype=SAFETENSORS_DTYPES[DTYPES[recipe.dtype]], force=self.config.inputs.force
        )
        return Blend(job, device)

    def only(self, source: int, device: str | torch.device = "cpu") -> Blend:
        """Returns one model, with tensors that do not match taken from the first."""
        weights = tuple(float(i == source) for i in range(len(self.sources)))
        return self.blend(Recipe(method="linear", weights=weights, dtype=self.config.output.dtype), device)

    @cached_property
    def apart(self) -> Sequence[str]:
        """Tensors that do not match and are taken from the first model, one line each; raises BaseModelError unless forced."""
        return list(self.only(0).apart.values())

    def remarks(self) -> list[str]:
        """Returns a warning about the tensors that do not match, if any."""
        return [f"{len(self.apart)} tensors are not merged, first {self.apart[0]}"] if self.apart else []

    def export_bytes(self, space: SearchSpace) -> int:
        """Returns the size of the merged model in bytes: merged tensors in the storage dtype, the rest as in the first model."""
        first, width = self.models[0], DTYPES[space.dtype].itemsize
        merged = [entry for entries in first.parts.values() for entry in entries.values()]
        beside = _size(first.place) - sum(math.prod(entry.shape) * TORCH_DTYPES[entry.dtype].itemsize for entry in merged)
        return sum(math.prod(entry.shape) for entry in merged) * width + max(0, beside)


class ModelMixer:
    """Creates candidates of full models; tensors are computed only when a candidate is rendered.

    Args:
        ensemble: models of the run.
        device: device of the renderer.
    """

    def __init__(self, ensemble: ModelEnsemble, device: torch.device) -> None:
        self._ensemble, self._device = ensemble, device

    def alone(self, source: int) -> Weights | None:
        """Returns one model without merging; None for the model that is loaded as the base."""
        if not source and not self._ensemble.based:
            return None
        return self._ensemble.only(source, self._device) if self._ensemble.apart else self._ensemble.models[source]

    def mixed(self, recipe: Recipe) -> tuple[Blend, float]:
        """Returns the blend that a recipe describes, which is never compressed."""
        return self._ensemble.blend(recipe, self._device), 0.0


def load_models(config: Config) -> ModelEnsemble:
    """Opens every model, reads its headers, and checks that they can be merged.

    Raises:
        BaseModelError: a model cannot be read, or the models do not match and ``force`` is not set.
        UsageError: a model is named twice, or a method cannot merge full models.
    """
    inputs = config.inputs
    _check_methods(config.search.methods)
    models = [open_model(spec) for spec in inputs.sources]
    for a, b in combinations(models, 2):
        if a.digest == b.digest:
            raise UsageError(f"{a.place} and {b.place} are the same model", where="--sources", remedy="name every source once")
    roles = inputs.roles or ("style",) * len(models)
    triggers = inputs.triggers or ("",) * len(models)
    names = unique_names([clean_name(model.name) for model in models])
    sources = [
        ModelSource(Subject(name, checked_role(role), trigger), model.place, model)
        for name, role, trigger, model in zip(names, roles, triggers, models, strict=True)
    ]
    found = ModelEnsemble(sources, open_model(inputs.base) if inputs.base else None, config)
    assert found.apart is not None  # the property compares the models before anything is loaded
    return found


def _check_methods(methods: Sequence[str]) -> None:
    for method in methods:
        if method in METHODS and METHODS[method].rank == "required":
            problem = f"{method} cuts LoRAs to a rank, which models do not have"
            raise UsageError(problem, where="--methods", remedy="leave it out")


def _size(place: Path) -> int:
    """Returns the size of a file, or of all files in a folder, in bytes."""
    return sum(path.stat().st_size for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file())
