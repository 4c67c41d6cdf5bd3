"""What loading has to know of a model's files, and of what libraries say when they cannot read them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from optimizer.errors import BaseModelError
from optimizer.rendering.families import models_of
from optimizer.text import first_sentence

COMPLETE = "fetch the whole folder again"
"""What to do about files that are not whole."""


def variant_of(folder: Path) -> str | None:
    """``fp16`` where only those weights are there."""
    names = {path.name for path in folder.glob("*.safetensors")}
    return "fp16" if names and all(".fp16" in name for name in names) else None


def missing_files(folder: Path, usual: str) -> list[str]:
    """The weight files that a model's folder lacks: the only one, or shards that its index names; by their names alone.

    Args:
        folder: of a model.
        usual: what the file is called where there is one.

    Raises:
        BaseModelError: there are pickles in their place.
    """
    names = {path.name for path in folder.glob("*.safetensors")}
    if not names:
        if pickle := next(iter(sorted(path.name for path in folder.glob("*.bin"))), None):
            problem = f"its weights are a pickle ({pickle}), which can run code when it is opened"
            raise BaseModelError(problem, where=folder, remedy="fetch the .safetensors files of the model")
        return [usual]
    shards: set[str] = set()
    for index in folder.glob("*.index*.json"):
        if (".fp16" in index.name) == (variant_of(folder) == "fp16") and ".safetensors." in index.name:
            with suppress(OSError, ValueError, LookupError, AttributeError):  # whoever loads it says what is wrong with it
                shards |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sorted(shards - names)


def check_class(folder: Path, wanted: str, remedy: str) -> None:
    """Raise BaseModelError where a model's folder is of another class than wanted: diffusers would make up what it does not find there."""
    config = folder / "config.json"
    try:
        found = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise BaseModelError(f"cannot be read: {first_sentence(error)}", where=config, remedy=COMPLETE) from error
    if found not in (None, wanted):
        raise BaseModelError(f"holds a {found}, not a {wanted}", where=folder, remedy=remedy)


def check_whole(model: nn.Module, place: Path) -> None:
    """Raise BaseModelError where diffusers found no weights for a part of a model, which it then leaves without storage."""
    if empty := [name for name, weight in model.named_parameters() if weight.is_meta]:
        raise BaseModelError(f"weights are missing: {_first_of(empty)}", where=place, remedy=COMPLETE)


def _first_of(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def missing_weights(pipeline: DiffusionPipeline, place: Path, lacking: list[str]) -> None:
    """Raise BaseModelError where weights are missing: those that are known to be, and those that diffusers left without storage because it
    found nothing for them."""
    empty = [f"{part}.{name}" for part, model in models_of(pipeline).items() for name, weight in model.named_parameters() if weight.is_meta]
    if lacking := [*lacking, *empty]:
        raise BaseModelError(f"weights are missing: {_first_of(lacking)}", where=place, remedy=COMPLETE)
