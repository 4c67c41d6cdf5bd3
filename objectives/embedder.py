"""The embedder: an open_clip model that converts pictures to vectors whose differences measure visual differences.

The model's final embedding is not used, because a style dominates it. The features of the model's stages are compared at each
position, as in LPIPS (Zhang et al. 2018, https://arxiv.org/abs/1801.03924, equation 1): features of unit length at every
position of every stage. Compared pictures start from identical noise, so their positions correspond. The features' mean over
the picture, which carries most of a style (Huang and Belongie 2017, https://arxiv.org/abs/1703.06868), is subtracted first and
kept as a separate part. Local differences then have equal weight in a repainted picture and in any other.
"""

from __future__ import annotations

import math
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
import torch
import torchvision.transforms.v2.functional as vision
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.errors import EmbedderError

_STAGES, _GRID = 4, 8
_CONFIG = "open_clip_config.json"


class Embedder(nn.Module):
    """An open_clip image tower with its own preprocessing, on tensors of square pictures.

    Stages are the tower's blocks after each quarter of its depth; a feature map of more than 8 × 8 positions is averaged down to 8 × 8.

    Args:
        model: the open_clip model.
        name: name or path that the model was loaded from, for records.
        batch: number of pictures per forward pass.
    """

    model: Any  # open_clip's classes have no common type with encode_image
    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, name: str, batch: int = 64) -> None:
        super().__init__()
        self.model, self.name, self.batch = model.eval().requires_grad_(False), name, batch
        config = open_clip.get_model_preprocess_cfg(model)
        size = config["size"]
        self.size = size if isinstance(size, int) else int(size[0])
        self.interpolation = vision.InterpolationMode(config["interpolation"])
        device = next(model.parameters()).device
        self.register_buffer("mean", torch.tensor(config["mean"], device=device)[:, None, None])
        self.register_buffer("std", torch.tensor(config["std"], device=device)[:, None, None])

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.mean.device

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Embeds pictures.

        Args:
            images: pictures, uint8, (n, 3, height, width).

        Returns:
            Unit vectors, float32, (n, d), on the CPU. Every stage contributes an equal part of the squared length: half of it for the
            mean and half for the positions, in equal parts.
        """
        return torch.cat([self._embed(chunk) for chunk in torch.split(images, self.batch)])

    def _embed(self, images: Tensor) -> Tensor:
        floats = images.to(self.device).float() / 255
        if floats.shape[-2:] != (self.size, self.size):
            floats = vision.resize(floats, [self.size], interpolation=self.interpolation, antialias=True)
            floats = vision.center_crop(floats.clamp(0, 1), [self.size, self.size])
        prepared = (floats - self.mean) / self.std
        maps = self.model.visual.forward_intermediates(prepared, intermediates_only=True)["image_intermediates"]
        return torch.cat([_places(maps[i]) / _STAGES**0.5 for i in _stages(len(maps))], dim=1).cpu()


def _stages(blocks: int) -> list[int]:
    """Returns the index of the last block of every quarter."""
    return [math.ceil(blocks * part / _STAGES) - 1 for part in range(1, _STAGES + 1)]


def _places(features: Tensor) -> Tensor:
    """Returns a feature map (n, c, h, w) as unit vectors (n, d): direction of its mean, and of the deviation from it per position."""
    height, width = (min(_GRID, length) for length in features.shape[-2:])
    places = F.adaptive_avg_pool2d(features.float(), (height, width)).flatten(2)
    mean = places.mean(dim=2, keepdim=True)
    differing = F.normalize(places - mean, dim=1) / math.sqrt(height * width)
    return torch.cat([F.normalize(mean, dim=1), differing], dim=2).flatten(1) / math.sqrt(2)


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
    return Embedder(model, str(spec))


def _model_and_weights(spec: str) -> tuple[str, str | None]:
    """Returns the open_clip model name and the tag of its pretrained weights."""
    if Path(spec).is_dir():
        if not (Path(spec) / _CONFIG).is_file():
            raise EmbedderError(f"{spec}: no open_clip model here ({_CONFIG} is missing) — give the folder of one")
        return f"local-dir:{spec}", None
    if spec.startswith("hf-hub:"):
        return spec, None
    model, _, tag = spec.partition("/")
    if model not in open_clip.list_models():
        near = get_close_matches(model, open_clip.list_models(), n=1)
        raise EmbedderError(
            f"{spec}: neither a folder nor a model that open_clip knows{f'; {near[0]} is one' if near else ''}"
            " — give a folder, MODEL/PRETRAINED or hf-hub:ORGANISATION/NAME"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:
        raise EmbedderError(f"{spec}: open_clip has no weights {tag!r} for {model} — choose from {', '.join(tags) or 'other models'}")
    return model, tag
