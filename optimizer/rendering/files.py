"""What loading has to know of a model's files, and of what libraries say when they cannot read them."""

from __future__ import annotations

from pathlib import Path


def variant_of(folder: Path) -> str | None:
    """``fp16`` where only those weights are there."""
    names = {path.name for path in folder.glob("*.safetensors")}
    return "fp16" if names and all(".fp16" in name for name in names) else None


def first_sentence(error: Exception) -> str:
    """The first sentence of a library's message."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
