"""Which kind of model a single file holds, as diffusers tells them apart."""

from __future__ import annotations

from pathlib import Path

from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES

from optimizer.checkpoints.blueprints import BLUEPRINTS
from optimizer.checkpoints.header import Header
from optimizer.errors import BaseModelError

SUPPORTED = "SD 1.x, SD 2.x, SDXL, SD 3, SD 3.5 or FLUX.1"
"""The models whose single files are read."""


def checkpoint_kind(file: Path, header: Header, remedy: str = "") -> str:
    """What diffusers calls the kind of a file, one of ``BLUEPRINTS``.

    Args:
        file: a single file.
        header: its header.
        remedy: what to do about one of another kind; to give a base to draw with where it is empty.

    Raises:
        BaseModelError: it is none that is drawn with.
    """
    tensors = header.tensors
    kind = "EDM" if any(name.startswith("edm_vpred.") for name in tensors) else header.model
    if kind in BLUEPRINTS and (kind != "v1" or CHECKPOINT_KEY_NAMES["v1"] in tensors):
        return kind
    what = header.mistaken or ("of an unknown model" if kind in ("", "v1") else f"of a model that is not supported ({kind})")
    remedy = remedy or f"give a checkpoint of {SUPPORTED}, or a diffusers folder of the same model with --base-config"
    raise BaseModelError(f"this file is {what}", where=file, remedy=remedy)
