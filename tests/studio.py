"""A studio for whole runs: a tiny base model on disk, four adapters that fit it, words, and the demo world's embedder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.demo.world import demo_embedder
from tests.files import kohya_file, random_parts
from tests.tiny import tiny_pipeline, tiny_shapes

NAMES = ("alba", "bruno", "clara", "dora", "emil", "frida")
_LAYERS = ("attn1.to_q", "attn2.to_out.0", "self_attn.out_proj")
_WORDS = "subjects: [a ball, a cube]\nsettings: [at sea, in snow]\n"


@dataclass(frozen=True)
class Studio:
    """What a run needs, as files.

    Attributes:
        folder: where they lie.
        base: a diffusers pipeline directory; pictures are 16 × 16.
        sources: adapters of one shape and different values and ranks.
        words: a YAML file for ``prompts``.
    """

    folder: Path
    base: Path
    sources: tuple[Path, ...]
    words: Path

    def options(self, **changes: Any) -> dict[str, Any]:
        """Options of a run of two sources that takes seconds: ``optimize(**studio.options(out=…))``."""
        return {
            "sources": self.sources[:2],
            "base": self.base,
            "budget": 3,
            "roles": ("style", "character"),
            "triggers": ("", "zig"),
            "prompts": self.words,
            "own": 1,
            "joint": 1,
            "confirm": 1,
            "finalists": 2,
            "steps": 2,
            "guidance": 2.0,
            "embedder": demo_embedder(),
            "device": "cpu",
        } | changes

    def arguments(self, **changes: Any) -> list[str]:
        """The options of a run as words of a command line."""
        words: list[str] = []
        for name, value in self.options(**changes).items():
            if value is not None:
                words += [f"--{name}", *([str(v) for v in value] if isinstance(value, tuple | list) else [str(value)])]
        return words


def build_studio(folder: Path) -> Studio:
    """Write the files into an empty folder."""
    base = folder / "base"
    tiny_pipeline().save_pretrained(base)
    shapes = {path: shape for path, shape in tiny_shapes().items() if path.endswith(_LAYERS)}
    sources = []
    for index, name in enumerate(NAMES):
        parts = random_parts(shapes, rank=2 + index, alpha=20.0, seed=index)
        sources.append(kohya_file(folder / f"{name}.safetensors", parts).path)
    words = folder / "words.yaml"
    words.write_text(_WORDS)
    return Studio(folder, base, tuple(sources), words)
