"""Detects the model type of a single file, in diffusers' terms."""

from __future__ import annotations

from pathlib import Path

from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES

from optimizer.adapters.families import FAMILIES, MODEL_TYPES
from optimizer.checkpoints.header import CheckpointHeader
from optimizer.errors import BaseModelError

_MODELS = tuple(dict.fromkeys(blueprint.model for family in FAMILIES.values() for blueprint in family.blueprints.values()))
SUPPORTED = f"{', '.join(_MODELS[:-1])} or {_MODELS[-1]}"
"""Models whose single files are supported."""


def checkpoint_kind(file: Path, header: CheckpointHeader, remedy: str = "") -> str:
    """Returns diffusers' model type of a file, one of the keys of ``MODEL_TYPES``.

    Args:
        file: a single file.
        header: header of the file.
        remedy: advice for an unsupported model type; if empty, to give a supported base model.

    Raises:
        BaseModelError: the model type is not supported.
    """
    tensors = header.tensors
    kind = "EDM" if any(name.startswith("edm_vpred.") for name in tensors) else header.model
    if kind in MODEL_TYPES and (kind != "v1" or CHECKPOINT_KEY_NAMES["v1"] in tensors):
        return kind
    what = header.mistaken or ("of an unknown model" if kind in ("", "v1") else f"of a model that is not supported ({kind})")
    remedy = remedy or f"give a checkpoint of {SUPPORTED}, or a diffusers folder of the same model with --base-config"
    raise BaseModelError(f"this file is {what}", where=file, remedy=remedy)
