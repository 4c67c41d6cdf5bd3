"""Embedders of timm, such as DINOv2, DINOv3 and SigLIP 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
from timm.data.config import resolve_model_data_config
from torch import nn

from objectives.embedder import Embedder, Preparation
from objectives.errors import EmbedderError

TIMM = "timm:"
_CONFIG = "config.json"
_SIDE = 224  # of pictures: a vision transformer of DINOv2 takes 518 by default, five times the positions


def is_timm(spec: str) -> bool:
    """Returns whether a specification names a model of timm: ``timm:MODEL``, or a folder that timm saved."""
    if spec.startswith(TIMM):
        return True
    try:
        return "architecture" in json.loads((Path(spec) / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def load_timm(spec: str, *, device: str = "cpu") -> Embedder:
    """Loads a model of timm as an embedder.

    Args:
        spec: folder with ``config.json`` and weights, as on a model's page at the hub, or ``timm:MODEL`` with the name of pretrained
            weights, e.g. ``timm:vit_base_patch14_dinov2.lvd142m``.
        device: torch device.

    Raises:
        EmbedderError: the model is not found, has no pretrained weights, or needs a download that is not possible.
    """
    name = spec.removeprefix(TIMM) if spec.startswith(TIMM) else f"local-dir:{Path(spec).absolute()}"
    if spec.startswith(TIMM):
        _check_known(name)
    try:
        model = _created(name).to(device)
    except Exception as error:  # timm raises whatever the hub client, the network or the files raise
        problem = " ".join(str(error).split())
        remedy = "give a folder with config.json and model.safetensors, as on the model's page at the hub, or go online once"
        raise EmbedderError(f"{spec}: the embedder cannot be loaded: {problem} — {remedy}") from error
    if not callable(getattr(model, "forward_intermediates", None)):
        raise EmbedderError(f"{spec}: timm gives no feature maps of this model — choose a vision transformer or a convolutional network")
    return timm_embedder(model, spec)


def timm_embedder(model: nn.Module, name: str) -> Embedder:
    """Returns a model of timm as an embedder, with the preparation that the model states."""
    config = _data_config(model)
    return Embedder(model, Preparation(config["input_size"][-1], config["mean"], config["std"], config["interpolation"]), name)


def _created(name: str) -> nn.Module:
    """Returns the pretrained model, for pictures of at most 224 pixels where its positions can be interpolated."""
    model: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    tower: Any = model
    if _data_config(model)["input_size"][-1] > _SIDE and hasattr(tower, "set_input_size"):
        tower.set_input_size(img_size=_SIDE)
        tower.pretrained_cfg = {**tower.pretrained_cfg, "input_size": (3, _SIDE, _SIDE)}
    return model


def _data_config(model: nn.Module) -> dict[str, Any]:
    """Returns size, mean, standard deviation and interpolation of the pictures that a model of timm wants."""
    resolve: Callable[[nn.Module], dict[str, Any]] = resolve_model_data_config
    return resolve(model)


def _check_known(name: str) -> None:
    """Raises an exception if timm has no pretrained weights of this name."""
    known = timm.list_models(pretrained=True)
    if name not in known and name not in {each.partition(".")[0] for each in known}:
        near = get_close_matches(name, known, n=1)
        raise EmbedderError(
            f"{TIMM}{name}: timm has no pretrained weights of this name{f'; {near[0]} is one' if near else ''}"
            " — give a name of timm.list_models(pretrained=True), or the folder of a model"
        )
