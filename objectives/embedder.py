"""The embedder: an open_clip model that turns pictures into vectors in which differences can be measured."""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch
import torchvision.transforms.v2.functional as vision
from torch import Tensor, nn


class EmbedderError(ValueError):
    """The embedder cannot be loaded."""


class Embedder(nn.Module):
    """An open_clip image tower with its own preprocessing, on tensors.

    Args:
        model: an open_clip model.
        name: what it was loaded from, for records.
        batch: pictures per forward pass.
    """

    def __init__(self, model: nn.Module, name: str, batch: int = 64) -> None:
        super().__init__()
        self.model, self.name, self.batch = model.eval().requires_grad_(False), name, batch
        config = open_clip.get_model_preprocess_cfg(model)
        size = config["size"]
        self.size = size if isinstance(size, int) else int(size[0])
        self.register_buffer("mean", torch.tensor(config["mean"])[:, None, None])
        self.register_buffer("std", torch.tensor(config["std"])[:, None, None])

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Embed pictures.

        Args:
            images: uint8, (n, 3, height, width).

        Returns:
            Unit vectors, float32, (n, d), on the CPU.
        """
        return torch.cat([self._embed(chunk) for chunk in images.split(self.batch)])

    def _embed(self, images: Tensor) -> Tensor:
        floats = images.to(self.device).float() / 255
        if floats.shape[-2:] != (self.size, self.size):
            floats = vision.resize(floats, [self.size], interpolation=vision.InterpolationMode.BICUBIC, antialias=True)
            floats = vision.center_crop(floats.clamp(0, 1), [self.size, self.size])
        vectors: Tensor = self.model.encode_image((floats - self.mean) / self.std, normalize=True)
        return vectors.float().cpu()


def load_embedder(spec: str | Path, *, device: str = "cpu") -> Embedder:
    """Load an embedder.

    Args:
        spec: a folder with ``open_clip_config.json`` and weights, or ``MODEL/PRETRAINED`` as open_clip names them,
            e.g. ``ViT-B-32/laion2b_s34b_b79k``.
        device: torch device.

    Raises:
        EmbedderError: not found, or not loadable without a download that is not possible here.
    """
    folder = Path(spec)
    if folder.is_dir():
        name, pretrained = f"local-dir:{folder}", None
    elif str(spec).count("/") == 1 and not folder.exists():
        name, pretrained = str(spec).split("/")
    else:
        raise EmbedderError(f"{spec}: neither a folder nor MODEL/PRETRAINED — see open_clip.list_pretrained() for names")
    try:
        model = open_clip.create_model(name, pretrained=pretrained, device=device, require_pretrained=pretrained is not None)
    except Exception as error:  # open_clip raises whatever the hub client, the network or the config parser raise
        raise EmbedderError(f"{spec}: the embedder cannot be loaded: {error} — give a local folder, or go online once") from error
    return Embedder(model, str(spec))
