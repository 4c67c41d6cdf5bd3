"""Opens a full model in a folder or in a single file."""

from __future__ import annotations

from pathlib import Path

from optimizer.adapters.files.base_location import locate_base
from optimizer.checkpoints.folder import Folder
from optimizer.checkpoints.model import Model


def open_model(spec: str | Path) -> Model:
    """Opens a full model; only headers are read.

    Args:
        spec: a diffusers folder, a single file, or the hub name of a model in the local cache.

    Raises:
        BaseModelError: the model does not exist, or is not of a known family.
    """
    place = locate_base(spec)
    if place.is_dir():
        return Folder(place)
    from optimizer.checkpoints.single_file import Checkpoint  # loads diffusers' conversions, not needed for folders

    return Checkpoint(place)
