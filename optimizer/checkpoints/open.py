"""Opening a full model, however it lies on the disk."""

from __future__ import annotations

from pathlib import Path

from optimizer.adapters.files.base_location import located
from optimizer.checkpoints.folder import Folder
from optimizer.checkpoints.model import Model


def open_model(spec: str | Path) -> Model:
    """A full model, of which only headers are read.

    Args:
        spec: a diffusers folder, a single file, or the name of a model in the hub's cache.

    Raises:
        BaseModelError: nothing is there, or it is no model of a known family.
    """
    place = located(spec)
    if place.is_dir():
        return Folder(place)
    from optimizer.checkpoints.single_file import Checkpoint  # which needs diffusers' conversions; folders do not wait for them

    return Checkpoint(place)
