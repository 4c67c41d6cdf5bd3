"""Origins: what the files about a merge say of its sources."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from optimizer.export.card import CardSource
from optimizer.export.heritage import Heritage, heritage
from optimizer.export.writer import ExportMetadata
from optimizer.merging import Recipe


@dataclass(frozen=True)
class Origin:
    """One source of a merge.

    Attributes:
        name: short, unique among the sources.
        sha256: hex digest of its file.
        role: ``style``, ``character`` or ``concept``; may be empty.
        trigger: the word that asks for it; may be empty.
        metadata: its file's header strings.
    """

    name: str
    sha256: str
    role: str = ""
    trigger: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def merge_metadata(recipe: Recipe, origins: Sequence[Origin]) -> ExportMetadata:
    """What the header of the merged file says."""
    names = [origin.name for origin in origins]
    return ExportMetadata(
        title=title(origins),
        merged_from=tuple(names),
        triggers=tuple(origin.trigger for origin in origins),
        roles=tuple(origin.role for origin in origins),
        recipe=recipe.data(),
        description=_description(recipe, names),
        heritage=heritage_of(origins),
        date=_date(),
    )


def card_sources(recipe: Recipe, origins: Sequence[Origin]) -> tuple[CardSource, ...]:
    """What the model card says of the sources."""
    return tuple(CardSource(o.name, o.sha256, weight, o.role, o.trigger) for o, weight in zip(origins, recipe.weights, strict=True))


def title(origins: Sequence[Origin]) -> str:
    """What the merge is called."""
    return " + ".join(origin.name for origin in origins)


def heritage_of(origins: Sequence[Origin]) -> Heritage:
    """What the merge takes over from its sources' metadata."""
    return heritage([(origin.name, origin.metadata) for origin in origins])


def base_name(base: str) -> str:
    """What a card calls the base model: of a local folder, since cards are published, its name only; the demo base where none is given."""
    if not base:
        return "the demo base of multilora-optimizer"
    return Path(base).name if Path(base).is_dir() else base


def _description(recipe: Recipe, names: list[str]) -> str:
    parts = ", ".join(f"{name} at {weight:g}" for name, weight in zip(names, recipe.weights, strict=True))
    return f"One LoRA merged from {parts}, by {recipe.method}."


def _date() -> str:
    """The day that SOURCE_DATE_EPOCH names, as reproducible builds have it; without it none, for equal inputs give equal files.

    A number of seconds that no calendar holds counts as none: a night's work does not end on a stray variable.
    """
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(seconds), UTC).date().isoformat() if re.fullmatch(r"\d{1,11}", seconds) else ""
