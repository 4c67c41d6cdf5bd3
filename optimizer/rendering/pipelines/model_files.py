"""Checks of a model's files: missing files, model class and missing weights."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from optimizer.adapters.files.variants import index_files
from optimizer.errors import BaseModelError
from optimizer.rendering.pipeline_class import models_of
from optimizer.text import first_sentence

COMPLETE = "fetch the whole folder again"
"""Remedy for incomplete files."""


def missing_files(folder: Path, usual: str) -> list[str]:
    """Returns the names of the weight files missing in a model's folder: the single file, or shards listed in the index.

    Args:
        folder: folder of a model.
        usual: usual name of a single weight file.

    Raises:
        BaseModelError: the folder has pickled weights instead of safetensors files.
    """
    names = {path.name for path in folder.glob("*.safetensors")}
    if not names:
        if pickle := next(iter(sorted(path.name for path in folder.glob("*.bin"))), None):
            problem = f"its weights are a pickle ({pickle}), which can run code when it is opened"
            raise BaseModelError(problem, where=folder, remedy="fetch the .safetensors files of the model")
        return [usual]
    shards: set[str] = set()
    for index in index_files(folder):
        with suppress(OSError, ValueError, LookupError, AttributeError):  # loading reports the error
            shards |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sorted(shards - names)


def check_class(folder: Path, wanted: str, remedy: str) -> None:
    """Raises BaseModelError if a model's folder is not of the wanted class; diffusers would silently fill in missing values."""
    config = folder / "config.json"
    try:
        found = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise BaseModelError(f"cannot be read: {first_sentence(error)}", where=config, remedy=COMPLETE) from error
    if found not in (None, wanted):
        raise BaseModelError(f"holds a {found}, not a {wanted}", where=folder, remedy=remedy)


def check_loaded(model: nn.Module, place: Path) -> None:
    """Raises BaseModelError if diffusers left parameters of a model on the meta device because it found no weights for them."""
    if empty := [name for name, weight in model.named_parameters() if weight.is_meta]:
        raise BaseModelError(f"weights are missing: {_first_of(empty)}", where=place, remedy=COMPLETE)


def _first_of(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def check_weights(pipeline: DiffusionPipeline, place: Path, lacking: list[str]) -> None:
    """Raises BaseModelError if weights of a pipeline are missing.

    These are the names in ``lacking``, and the parameters that diffusers left on the meta device because it found no weights for them.
    """
    empty = [f"{part}.{name}" for part, model in models_of(pipeline).items() for name, weight in model.named_parameters() if weight.is_meta]
    if lacking := [*lacking, *empty]:
        raise BaseModelError(f"weights are missing: {_first_of(lacking)}", where=place, remedy=COMPLETE)
