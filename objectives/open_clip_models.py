"""Embedders of open_clip."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
from torch import nn

from objectives.embedder import Embedder, Preparation
from objectives.errors import EmbedderError

_CONFIG = "open_clip_config.json"


def load_open_clip(spec: str | Path, *, device: str = "cpu") -> Embedder:
    """Loads an open_clip model as an embedder.

    Args:
        spec: folder with ``open_clip_config.json`` and weights, ``MODEL/PRETRAINED`` as open_clip names them, e.g.
            ``ViT-B-32/laion2b_s34b_b79k``, or ``hf-hub:ORGANISATION/NAME``.
        device: torch device.

    Raises:
        EmbedderError: the model is not found, or needs a download that is not possible.
    """
    name, pretrained = _model_and_weights(str(spec))
    try:
        model = open_clip.create_model(name, pretrained=pretrained, device=device, require_pretrained=True)
    except Exception as error:  # open_clip raises whatever the hub client, the network or the config parser raise
        problem = " ".join(str(error).split())
        raise EmbedderError(f"{spec}: the embedder cannot be loaded: {problem} — give a complete folder, or go online once") from error
    return open_clip_embedder(model, str(spec))


def open_clip_embedder(model: nn.Module, name: str) -> Embedder:
    """Returns the image tower of an open_clip model as an embedder, with the preparation that the model states."""
    config = open_clip.get_model_preprocess_cfg(model)
    size = config["size"]
    side = size if isinstance(size, int) else int(size[0])
    tower: Any = model
    return Embedder(tower.visual, Preparation(side, config["mean"], config["std"], config["interpolation"]), name)


def _model_and_weights(spec: str) -> tuple[str, str | None]:
    """Returns the open_clip model name and the tag of its pretrained weights."""
    if Path(spec).is_dir():
        if not (Path(spec) / _CONFIG).is_file():
            raise EmbedderError(
                f"{spec}: no model of open_clip or timm here ({_CONFIG} or config.json is missing) — give the folder of one"
            )
        return f"local-dir:{spec}", None
    if spec.startswith("hf-hub:"):
        return spec, None
    model, _, tag = spec.partition("/")
    if model not in open_clip.list_models():
        near = get_close_matches(model, open_clip.list_models(), n=1)
        raise EmbedderError(
            f"{spec}: neither a folder nor a model that open_clip knows{f'; {near[0]} is one' if near else ''}"
            " — give a folder, MODEL/PRETRAINED, hf-hub:ORGANISATION/NAME or timm:MODEL"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:
        raise EmbedderError(f"{spec}: open_clip has no weights {tag!r} for {model} — choose from {', '.join(tags) or 'other models'}")
    return model, tag
