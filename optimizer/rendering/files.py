"""What loading has to know of a model's files, and of what libraries say when they cannot read them."""

from __future__ import annotations

from pathlib import Path

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.errors import BaseModelError
from optimizer.rendering.families import models_of

COMPLETE = "fetch the whole folder again"
"""What to do about files that are not whole."""


def variant_of(folder: Path) -> str | None:
    """``fp16`` where only those weights are there."""
    names = {path.name for path in folder.glob("*.safetensors")}
    return "fp16" if names and all(".fp16" in name for name in names) else None


def first_sentence(error: Exception) -> str:
    """The first sentence of a library's message."""
    if "Cannot copy out of meta tensor" in str(error):
        return "weights are missing in it"  # diffusers leaves those that a single file lacks without storage, and then moves them
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__


def missing_weights(pipeline: DiffusionPipeline, place: Path, lacking: list[str]) -> None:
    """Raise BaseModelError where weights are missing: those that are known to be, and those that diffusers left without storage because it
    found nothing for them."""
    empty = [f"{part}.{name}" for part, model in models_of(pipeline).items() for name, weight in model.named_parameters() if weight.is_meta]
    if lacking := [*lacking, *empty]:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise BaseModelError(f"weights are missing: {lacking[0]}{more}", where=place, remedy=COMPLETE)
