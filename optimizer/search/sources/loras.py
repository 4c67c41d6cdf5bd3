"""LoRA sources: loads LoRA files by name and assigns each a role and a trigger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import torch

from optimizer.adapters import Adapter, BaseWeights, distillation, load_adapter
from optimizer.adapters.families import FAMILIES
from optimizer.adapters.files.base_location import locate_base
from optimizer.adapters.files.metadata_keys import TAGS
from optimizer.adapters.files.trigger_words import Trigger, find_trigger
from optimizer.errors import BaseModelError, UsageError
from optimizer.inspection.strength import norms_together
from optimizer.merging import DTYPES, shared_modules
from optimizer.rendering import AnyRenderer
from optimizer.rendering.fake_spec import is_fake
from optimizer.rendering.memory.oom import Note
from optimizer.rendering.prompts import Subject
from optimizer.search.config import Config, Inputs
from optimizer.search.proposals.bounds import Bounds
from optimizer.search.proposals.methods import searched_methods
from optimizer.search.proposals.priors import priors
from optimizer.search.proposals.space import SearchSpace, space_for
from optimizer.search.sources.lora_mixer import LoraMixer
from optimizer.search.sources.source import Ensemble, RouterLookup, Source, checked_role, unique_names
from optimizer.text import printable
from studies.demo.world import PREFIX, DemoSource, UnknownDemoSource, demo_source

_WIDE = 512  # rank bound; LoRAs in use have lower ranks
_ASSUMED_ROLE = "concept"  # its trigger invokes it beside any subject
_ROLE_WORDS = {"style": "style", "character": "character", "person": "character", "concept": "concept", "object": "concept"}


@dataclass(frozen=True)
class LoraSource(Source):
    """One LoRA of the run.

    Attributes:
        adapter: content of the LoRA file.
        found: trigger that was found in or beside the file; None if the user or the demo world gives one.
    """

    adapter: Adapter
    found: Trigger | None = None

    @property
    def guess(self) -> str:
        """Note that the trigger in use is a guess, and what it is guessed from; empty if it is none."""
        found = self.found
        if found is None or not found.origin or self.subject.trigger != found.text:
            return ""
        return f"trigger {found.text!r} taken from {found.origin} of {printable(self.file.name)}; --triggers gives another"

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, as a hex digest."""
        return self.adapter.sha256

    @property
    def metadata(self) -> Mapping[str, str]:
        """Metadata strings of the file header."""
        return self.adapter.metadata

    @property
    def family(self) -> str:
        """Family of the base model that the LoRA was trained for."""
        return self.adapter.base

    @property
    def ranks(self) -> tuple[int, int]:
        """Lowest and highest rank of its modules."""
        ranks = [factors.rank for factors in self.adapter.modules.values()]
        return min(ranks), max(ranks)


@dataclass(frozen=True)
class LoraEnsemble(Ensemble):
    """The LoRAs of a run.

    Attributes:
        sources: sources, in the order of the recipes' weights.
        config: configuration of the run.
    """

    sources: Sequence[LoraSource]
    config: Config

    @property
    def adapters(self) -> list[Adapter]:
        """Adapters of the sources."""
        return [s.adapter for s in self.sources]

    def fitted(self, renderer: AnyRenderer) -> LoraEnsemble:
        """Returns the ensemble with adapters in the shapes of the base's weights; raises BaseModelError if one does not fit."""
        return replace(self, sources=[replace(s, adapter=renderer.fit_adapter(s.adapter)) for s in self.sources])

    def space(self, budget: int) -> SearchSpace:
        """Returns the search space of a study with this budget."""
        search, output, names = self.config.search, self.config.output, [s.name for s in self.sources]
        bounds = Bounds.of(search, names)
        return space_for(
            self.adapters,
            budget=budget,
            methods=searched_methods(self.config, budget),
            rank=output.rank,
            dtype=output.dtype,
            seed=search.seed,
            bounds=bounds,
            blocks=search.blocks,
            priors=priors(names, self.strengths, self.roles) if len(bounds.frozen) < len(names) else (),
        )

    @cached_property
    def strengths(self) -> tuple[float, ...]:
        """Strength of each source on the modules that all sources change."""
        return norms_together(self.adapters)

    @property
    def roles(self) -> tuple[str, ...]:
        """Role of each source; empty if one of them is only assumed."""
        return tuple(s.subject.role for s in self.sources) if all(s.role_stated for s in self.sources) else ()

    def mixer(self, device: torch.device, note: Note | None = None, router: RouterLookup | None = None) -> LoraMixer:
        """Returns the mixer that merges the LoRAs."""
        return LoraMixer(self.adapters, device, note, router)

    def remarks(self) -> list[str]:
        """Returns warnings about the sources for the user, one line each."""
        return remarks(self.sources, self.config.output.rank)

    def notes(self) -> list[str]:
        """Returns a note for each trigger that is a guess."""
        return [source.guess for source in self.sources if source.guess]

    def export_bytes(self, space: SearchSpace) -> int:
        """Returns the size of the largest merged file, and of the temporary copy while it is written, in bytes.

        Every module has the recipes' rank, or the sum of the sources' and a correction's, limited by the rank of its weight.
        """
        shapes = {path: factors.shape for adapter in self.adapters for path, factors in adapter.modules.items()}
        rank = space.rank or (space.sum_of_ranks or 0) + space.correction
        numbers = 0
        for shape in shapes.values():
            out, into = shape[0], math.prod(shape[1:])
            numbers += min(rank, out, into) * (out + into)
        return 2 * numbers * DTYPES[space.dtype].itemsize


def load_loras(inputs: Inputs) -> list[LoraSource]:
    """Reads every source and checks that they can be merged with each other.

    Raises:
        AdapterError: a file cannot be used.
        BaseModelError: a file needs a weight that the base model lacks.
        UsageError: the sources belong to different bases, or are identical files.
    """
    base = weights_of(inputs.base)
    sources = [_load(spec, inputs, index, base) for index, spec in enumerate(inputs.sources)]
    _check_together(sources)
    return _uniquely_named(sources)


def weights_of(base: str) -> BaseWeights | None:
    """Returns the weights of a diffusers folder, local or in the hub's cache; None if there are none, which is reported on loading."""
    if not base or is_fake(base):
        return None
    try:
        folder = locate_base(base)
    except BaseModelError:
        return None
    return BaseWeights(folder) if (folder / "model_index.json").is_file() else None


def remarks(sources: Sequence[LoraSource], rank: int | None) -> list[str]:
    """Returns warnings about the sources for the user, one line each.

    Args:
        sources: sources of the run.
        rank: requested rank of the merge.
    """
    lines = []
    for source in sources:
        if kind := distillation(source.file.name, source.adapter.metadata):
            lines.append(
                f"{source.name} calls itself a distillation LoRA ({kind}), which changes how many steps a picture needs: "
                f"merged, it does so for all sources; --with {source.file.name} instead draws with it and leaves it out of the merge"
            )
        if rank is None and (widest := max(factors.rank for factors in source.adapter.modules.values())) > _WIDE:
            lines.append(
                f"{source.name} has a rank of up to {widest}, as changes have that are not a LoRA's: the exported file keeps the sum of "
                "all sources' ranks and will be large; --rank 64 would bound it"
            )
        if unknown := source.adapter.coverage.unknown:
            first, reason = next(iter(unknown.items()))
            lines.append(f"{source.name}: {len(unknown)} tensors are left out, first {first[:100]} ({reason})")
    lines += [_apart(a, b) for a, b in combinations(sources, 2) if not shared_modules([a.adapter, b.adapter])]
    return lines


def _load(spec: str, inputs: Inputs, index: int, base: BaseWeights | None) -> LoraSource:
    role: str | None = None
    trigger: str | None = None
    if spec.startswith(PREFIX):
        demo = known_demo_source(spec)
        path, role, trigger = demo.path, demo.role, demo.trigger
    else:
        path = Path(spec)
    adapter = load_adapter(path, allow_unknown=inputs.allow_unknown, base=base)
    role = inputs.roles[index] if inputs.roles else role or _tagged_role(adapter)
    trigger = inputs.triggers[index] if inputs.triggers else trigger
    found = find_trigger(adapter.metadata, path) if trigger is None else None
    subject = Subject(adapter.name, checked_role(role or _ASSUMED_ROLE), found.text if found else trigger or "")
    return LoraSource(subject, path, adapter, found, role_stated=role is not None)


def known_demo_source(spec: str) -> DemoSource:
    """Returns the demo source ``demo:NAME``; raises UsageError if there is none of this name."""
    try:
        return demo_source(spec)
    except UnknownDemoSource as error:
        problem, _, remedy = str(error).partition(" — ")
        raise UsageError(problem, remedy=remedy) from error


def _tagged_role(adapter: Adapter) -> str | None:
    """Returns the role from the file's tags; None if they state none."""
    tags = adapter.metadata.get(TAGS, "").lower()
    return next((role for word, role in _ROLE_WORDS.items() if word in tags), None)


def _check_together(sources: Sequence[LoraSource]) -> None:
    for a, b in combinations(sources, 2):
        if a.adapter.sha256 == b.adapter.sha256:
            raise UsageError(f"{a.file} and {b.file} are the same file", where="--sources", remedy="name every source once")
        bases = {a.adapter.base, b.adapter.base} - {"unknown"}
        if len(bases) > 1:
            raise UsageError(
                f"{_for_what(a)}; {_for_what(b)}",
                where="--sources",
                remedy="merge sources of one base model",
            )


def _apart(a: LoraSource, b: LoraSource) -> str:
    """Returns a warning about two sources that share no module."""
    told = f"{a.name} and {b.name} change no module in common, so that neither disturbs the other's weights"
    unknown = [source.name for source in (a, b) if source.adapter.base == "unknown"]
    return told + (f"; the family of {' and '.join(unknown)} is not known: check that both are for one base model" if unknown else "")


def _for_what(source: LoraSource) -> str:
    return f"{source.file} is for {title_of(source.adapter)} ({source.adapter.base_reason})"


def title_of(adapter: Adapter) -> str:
    """Returns the name of the family of bases that an adapter of a known family is for."""
    return FAMILIES[adapter.base].title


def _uniquely_named(sources: Sequence[LoraSource]) -> list[LoraSource]:
    return [
        replace(source, adapter=replace(source.adapter, name=name), subject=replace(source.subject, name=name))
        for source, name in zip(sources, unique_names([s.name for s in sources]), strict=True)
    ]
