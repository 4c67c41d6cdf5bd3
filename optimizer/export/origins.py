"""Origins: metadata and model card entries about the sources of a merge."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from optimizer.adapters import Dialect
from optimizer.export.card import CardSource
from optimizer.export.drawn_with import DrawnWith
from optimizer.export.heritage import Heritage, heritage
from optimizer.export.setup import Setup
from optimizer.export.writer import ExportMetadata
from optimizer.merging import Recipe


@dataclass(frozen=True)
class Origin:
    """One source of a merge.

    Attributes:
        name: short name, unique among the sources.
        sha256: hex SHA-256 digest of the source file.
        role: ``style``, ``character`` or ``concept``; may be empty.
        trigger: trigger word; may be empty.
        metadata: metadata strings of the source file's header.
    """

    name: str
    sha256: str
    role: str = ""
    trigger: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def merge_metadata(recipe: Recipe, origins: Sequence[Origin]) -> ExportMetadata:
    """Returns the metadata for the header of the merged file."""
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
    """Returns the sources as entries of the model card."""
    return tuple(CardSource(o.name, o.sha256, weight, o.role, o.trigger) for o, weight in zip(origins, recipe.weights, strict=True))


def setup_of(dialect: Dialect, origins: Sequence[Origin], drawn_with: DrawnWith) -> Setup:
    """Returns the setup of a merge, as recipe files hold it beside the recipe.

    Args:
        dialect: dialect of the merged file.
        origins: sources, in the recipe's order.
        drawn_with: what pictures were drawn with, besides the base model.
    """
    return Setup(
        dialect=dialect,
        names=tuple(origin.name for origin in origins),
        roles=tuple(origin.role for origin in origins),
        triggers=tuple(origin.trigger for origin in origins),
        drawn_with=drawn_with,
    )


def title(origins: Sequence[Origin]) -> str:
    """Returns the title of the merge: the source names joined by `` + ``."""
    return " + ".join(origin.name for origin in origins)


def heritage_of(origins: Sequence[Origin]) -> Heritage:
    """Returns the metadata that the merge inherits from its sources."""
    return heritage([(origin.name, origin.metadata) for origin in origins])


def base_name(base: str) -> str:
    """Returns the base model's name on a card: only the name of a local folder, since cards are published; the demo base if empty."""
    if not base:
        return "the demo base of multilora-optimizer"
    return Path(base).name if Path(base).is_dir() else base


def _description(recipe: Recipe, names: list[str]) -> str:
    parts = ", ".join(f"{name} at {weight:g}" for name, weight in zip(names, recipe.weights, strict=True))
    return f"One LoRA merged from {parts}, by {recipe.method}."


def _date() -> str:
    """Returns the ISO date of SOURCE_DATE_EPOCH (reproducible builds); empty if unset, so that equal inputs give equal files.

    A value that is not a number of at most 11 digits is ignored.
    """
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(seconds), UTC).date().isoformat() if re.fullmatch(r"\d{1,11}", seconds) else ""
