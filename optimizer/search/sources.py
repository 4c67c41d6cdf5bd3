"""Sources as the user names them, turned into adapters with a role and a trigger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, count
from pathlib import Path

from optimizer.adapters import Adapter, BaseWeights, distillation, load_adapter
from optimizer.adapters.families import FAMILIES
from optimizer.adapters.locate import located
from optimizer.adapters.said import TAGS, TRIGGER, said
from optimizer.errors import BaseModelError, UsageError
from optimizer.export import Origin
from optimizer.merging import shared_modules
from optimizer.rendering.fake_spec import is_fake
from optimizer.rendering.prompts import ROLES, Role, Subject
from optimizer.search.config import Config
from studies.demo.world import PREFIX, UnknownDemoSource, demo_source

_WIDE = 512  # no LoRA in use is as wide
_ROLE_WORDS = {"style": "style", "character": "character", "person": "character", "concept": "concept", "object": "concept"}


@dataclass(frozen=True)
class Source:
    """One LoRA of the run: the adapter, what asks for it, and the file it came from."""

    adapter: Adapter
    subject: Subject
    file: Path

    @property
    def name(self) -> str:
        """Its short, unique name."""
        return self.subject.name

    @property
    def origin(self) -> Origin:
        """What the files about a merge say of it."""
        return Origin(self.name, self.adapter.sha256, self.subject.role, self.subject.trigger, self.adapter.metadata)


def load_sources(config: Config) -> list[Source]:
    """Read every source and check that they can be merged with each other.

    Raises:
        AdapterError: a file cannot be used.
        BaseModelError: a file needs a weight that the base model lacks.
        UsageError: the sources belong to different bases, are the same file, or share no module.
    """
    base = _weights(config.base)
    sources = [_load(spec, config, index, base) for index, spec in enumerate(config.sources)]
    _check_together(sources)
    return _uniquely_named(sources)


def _weights(base: str) -> BaseWeights | None:
    """The weights of a diffusers folder, here or in the hub's cache; None where the base is none, of which is told when it is loaded."""
    if not base or is_fake(base):
        return None
    try:
        folder = located(base)
    except BaseModelError:
        return None
    return BaseWeights(folder) if (folder / "model_index.json").is_file() else None


def remarks(sources: Sequence[Source], rank: int | None) -> list[str]:
    """What users should know of their sources before the run, one line each.

    Args:
        sources: of the run.
        rank: that was asked for.
    """
    lines = []
    for source in sources:
        if kind := distillation(source.file.name, source.adapter.metadata):
            lines.append(
                f"{source.name} calls itself a distillation LoRA ({kind}), which changes how many steps a picture needs: "
                "merged, it does so for all sources; --steps and --guidance should suit it"
            )
        if rank is None and (widest := max(factors.rank for factors in source.adapter.modules.values())) > _WIDE:
            lines.append(
                f"{source.name} has a rank of up to {widest}, as changes have that are not a LoRA's: the exported file keeps the sum of "
                "all sources' ranks and will be large; --rank 64 would bound it"
            )
        if unknown := source.adapter.coverage.unknown:
            first, reason = next(iter(unknown.items()))
            lines.append(f"{source.name}: {len(unknown)} tensors are left out, first {first[:100]} ({reason})")
    return lines


def _load(spec: str, config: Config, index: int, base: BaseWeights | None) -> Source:
    role: str | None = None
    trigger: str | None = None
    if spec.startswith(PREFIX):
        try:
            demo = demo_source(spec)
        except UnknownDemoSource as error:
            problem, _, remedy = str(error).partition(" — ")
            raise UsageError(problem, remedy=remedy) from error
        path, role, trigger = demo.path, demo.role, demo.trigger
    else:
        path = Path(spec)
    adapter = load_adapter(path, allow_unknown=config.allow_unknown, base=base)
    role = config.roles[index] if config.roles else role or _role(adapter)
    trigger = config.triggers[index] if config.triggers else trigger if trigger is not None else said(adapter.metadata, TRIGGER)
    return Source(adapter, Subject(adapter.name, _checked_role(role), trigger), path)


def _checked_role(role: str) -> Role:
    return next(known for known in ROLES if known == role)


def _role(adapter: Adapter) -> str:
    """From the file's tags; a source that says nothing counts as a concept: it is asked for by its trigger, beside any subject."""
    tags = adapter.metadata.get(TAGS, "").lower()
    return next((role for word, role in _ROLE_WORDS.items() if word in tags), "concept")


def _check_together(sources: Sequence[Source]) -> None:
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
        if not shared_modules([a.adapter, b.adapter]):
            raise UsageError(f"{a.file} and {b.file} share no module", where="--sources", remedy="merge sources of one base model")


def _for_what(source: Source) -> str:
    return f"{source.file} is for {FAMILIES[source.adapter.base].title} ({source.adapter.base_reason})"


def _uniquely_named(sources: Sequence[Source]) -> list[Source]:
    """The sources, where several have one name numbered: ``hero``, ``hero-2``."""
    unique: dict[str, Source] = {}
    for source in sources:
        candidates = (source.name if n == 1 else f"{source.name}-{n}" for n in count(1))
        name = next(candidate for candidate in candidates if candidate not in unique)
        unique[name] = replace(source, adapter=replace(source.adapter, name=name), subject=replace(source.subject, name=name))
    return list(unique.values())
