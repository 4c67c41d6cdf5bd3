"""Embedders of timm: folders as timm saves them, with random weights, and what is said of names and weights that are not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor

from objectives import Embedder, EmbedderError, load_embedder
from objectives.embedder import Preparation
from objectives.embedder_check import check_embedder

ROOT = Path(__file__).parents[2]
TOWERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "transformer": ("vit_tiny_patch16_224", {"embed_dim": 32, "depth": 4, "num_heads": 2}, 4 * 65 * 32),
    "DINOv2, at 224 pixels": ("vit_small_patch14_dinov2", {"embed_dim": 32, "depth": 4, "num_heads": 2}, 4 * 65 * 32),
    "convolutional": ("convnext_atto", {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}, 65 * 8 + 65 * 16 + 65 * 24 + 50 * 32),
}


def pictures(count: int = 3) -> Tensor:
    """Smooth blotches, uint8 (n, 3, 64, 64)."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic", antialias=True)
    return (fine.clamp(0, 1) * 255).round().to(torch.uint8)


def saved(folder: Path, tower: str) -> Path:
    """A small model with random weights, as timm writes it for the hub."""
    name, smaller, _ = TOWERS[tower]
    torch.manual_seed(0)
    save_for_hf(timm.create_model(name, num_classes=0, **smaller), str(folder), model_args=smaller, safe_serialization=True)
    return folder


@pytest.mark.parametrize("tower", TOWERS)
def test_a_folder_of_timm(tmp_path: Path, tower: str) -> None:
    embedder = load_embedder(saved(tmp_path / "model", tower))
    assert isinstance(embedder, Embedder)
    assert embedder.name == str(tmp_path / "model")
    assert embedder.preparation.size == 224
    found = embedder(pictures())
    assert found.shape == (3, TOWERS[tower][2])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(load_embedder(tmp_path / "model")(pictures()), found)


def test_the_features_are_those_of_timm(tmp_path: Path) -> None:
    embedder = load_embedder(saved(tmp_path, "transformer"))
    model: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0).eval()
    prepared = torch.nn.functional.interpolate(pictures().float() / 255, size=(224, 224), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.inference_mode():
        last = model.forward_intermediates((prepared - 0.5) / 0.5, indices=1, intermediates_only=True)[0]
    places = torch.nn.functional.adaptive_avg_pool2d(last, (8, 8)).flatten(2)
    whole = torch.nn.functional.normalize(places.mean(dim=2), dim=1) / 8**0.5
    part = embedder(pictures()).reshape(3, 4, 32, 65)[:, -1, :, 0]
    torch.testing.assert_close(part, whole, rtol=0, atol=2e-3)


def test_a_name_that_timm_does_not_know() -> None:
    with pytest.raises(EmbedderError, match=r"^timm:vit_base_patch14_dinov2\.lvd142: timm has no pretrained weights of this name; "):
        load_embedder("timm:vit_base_patch14_dinov2.lvd142")


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (saved(tmp_path, "transformer") / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").unlink(missing_ok=True)
    with pytest.raises(EmbedderError, match=r"^[^\n]+: the embedder cannot be loaded: [^\n]+ — give a folder with config\.json and model"):
        load_embedder(tmp_path)


def test_a_name_when_offline(tmp_path: Path) -> None:
    """In a process of its own, as the hub's client reads these settings when it is imported; any connection is an error there."""
    code = """
import socket
from objectives import EmbedderError, load_embedder
def refuse(*arguments):
    raise SystemExit("the network was touched")
socket.socket.connect = socket.getaddrinfo = refuse
try:
    load_embedder("timm:vit_small_patch14_dinov2.lvd142m")
except EmbedderError as error:
    print(error)
"""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("timm:vit_small_patch14_dinov2.lvd142m: the embedder cannot be loaded: ")
    assert done.stdout.endswith("or go online once\n")


class Tower(torch.nn.Module):
    """A tower whose four feature maps are the pictures times a factor, or the sine of that."""

    def __init__(self, factor: float, *, wild: bool = False) -> None:
        super().__init__()
        self.factor, self.wild = torch.nn.Parameter(torch.tensor(factor)), wild

    def forward_intermediates(self, images: Tensor, *, intermediates_only: bool) -> list[Tensor]:
        assert intermediates_only
        found = images * self.factor
        return [found.sin() if self.wild else found] * 4


def checked(tower: torch.nn.Module) -> None:
    check_embedder(Embedder(tower, Preparation(64, (0.5,) * 3, (0.5,) * 3, "bicubic"), "tower"))


def test_a_tower_that_sees_is_accepted() -> None:
    checked(Tower(1.0))


@pytest.mark.parametrize(
    ("tower", "problem"),
    [
        (Tower(float("nan")), "its vectors have lengths from nan to nan"),
        (Tower(0.0), "its vectors have lengths from 0 to 0"),
        (Tower(1e4, wild=True), "a little grain moves a drawing as far as noise"),
    ],
)
def test_a_tower_that_does_not_see_is_refused(tower: Tower, problem: str) -> None:
    with pytest.raises(EmbedderError) as caught:
        checked(tower)
    remedy = "its weights may be incomplete: get them again"
    assert str(caught.value) == f"tower: the embedder does not tell pictures apart: {problem} — {remedy}"
