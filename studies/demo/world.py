"""Where the built demo world lies, and what its sources are called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from studies.summary import DEMO_BASE

ASSETS = Path(__file__).parent / "assets"
PREFIX = "demo:"
STEPS, GUIDANCE = 10, 1.5


class UnknownDemoSource(ValueError):
    """There is no demo source of this name; the message lists those that there are."""


@dataclass(frozen=True)
class DemoSource:
    """A shipped LoRA: its file, role (``style``, ``character`` or ``concept``) and trigger (empty: always on)."""

    name: str
    role: str
    trigger: str
    path: Path


def demo_sources() -> dict[str, DemoSource]:
    """All shipped sources by name."""
    folder = ASSETS / "sources"
    index = json.loads((folder / "sources.json").read_text())
    return {name: DemoSource(name, entry["role"], entry["trigger"], folder / entry["file"]) for name, entry in index.items()}


def demo_source(spec: str) -> DemoSource:
    """The source that ``demo:NAME`` means.

    Raises:
        UnknownDemoSource: no such name.
    """
    name = spec.removeprefix(PREFIX)
    sources = demo_sources()
    if name not in sources:
        raise UnknownDemoSource(f"{spec}: there is no demo source {name!r} — choose from {', '.join(PREFIX + n for n in sources)}")
    return sources[name]


def demo_family(path: Path) -> str:
    """Returns ``DEMO_BASE``, the family of the shipped sources, if a file is one of them, and nothing otherwise."""
    return DEMO_BASE if path.resolve().is_relative_to(ASSETS.resolve()) else ""


def demo_base() -> Path:
    """The base model's pipeline directory."""
    return ASSETS / "base"


def demo_embedder() -> Path:
    """The open_clip model's directory."""
    return ASSETS / "embedder"


def demo_words() -> Path:
    """The file of words that prompts are built from."""
    return ASSETS / "words.yaml"
