"""Export of a full model: written and verified tensor by tensor."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import torch
import yaml

from optimizer.checkpoints.open import open_model
from optimizer.errors import ExportError
from optimizer.export.naming import unversioned
from optimizer.merging.models import Blend, merge_record, merge_record_path, merge_record_text
from studies.atomic import write_text


def export_model(blend: Blend, best: Path, name: str) -> Path:
    """Writes the model that was rendered with, and verifies the written tensors.

    A model that was written before, from the same models and recipe, is not written again; any other model gets a new version number.

    Args:
        blend: model that was rendered with.
        best: destination folder.
        name: file name of a LoRA with this recipe, from which the model's name is derived.

    Returns:
        Path of the model folder or file.

    Raises:
        ExportError: a written tensor differs from the one that was rendered with.
    """
    best.mkdir(exist_ok=True)
    place, known = _place(blend, best, unversioned(Path(name).stem))
    if not known:
        blend.first.write(blend, place, dtype=blend.job.dtype)
        write_text(merge_record_path(place), merge_record_text(blend.job))
    _verify(blend, place)
    return place


def _place(blend: Blend, best: Path, stem: str) -> tuple[Path, bool]:
    """Returns the first versioned path that is free or already contains this blend, and whether it does."""
    for version in count(1):
        place = best / f"{stem}_v{version}{blend.first.suffix}"
        if not place.exists():
            return place, False
        if _saved_record(place) == merge_record(blend.job):
            return place, True
    raise AssertionError("there are always more numbers")


def _saved_record(place: Path) -> object:
    """Returns the ``merge.yaml`` content of an existing model, or None if the model is incomplete."""
    try:
        return yaml.safe_load(merge_record_path(place).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _verify(blend: Blend, place: Path) -> None:
    written = open_model(place)
    for part, name in blend.names:
        wanted, found = blend.read(part, name).cpu(), written.read(part, name)
        if found.dtype != wanted.dtype or not torch.equal(found, wanted):
            problem = f"{part}.{name}, read back, is not what was drawn with"
            raise ExportError(problem, where=place, remedy="check the disk, and run the same command again")
