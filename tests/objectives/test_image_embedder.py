"""The embedder that ships, through the code path of every other one, and what is said of those that cannot be loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from objectives import Embedder, EmbedderError, load_embedder
from objectives.open_clip_models import open_clip_embedder

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "studies" / "demo" / "assets" / "embedder"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return shipped()


def shipped() -> Embedder:
    found = load_embedder(SHIPPED)
    assert isinstance(found, Embedder)
    return found


def pictures(count: int, side: int = 64, seed: int = 0) -> Tensor:
    """Smooth blotches, uint8 (n, 3, side, side)."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", antialias=True)
    return (fine.clamp(0, 1) * 255).round().to(torch.uint8)


def test_it_gives_unit_vectors(embedder: Embedder) -> None:
    found = embedder(pictures(5))
    assert found.shape == (5, 80 * 65 + 160 * 65 + 320 * 17 + 640 * 5)
    assert (found.dtype, found.device.type, found.requires_grad) == (torch.float32, "cpu", False)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    assert float((found[0] - found[1]).norm()) > 0.05


def test_the_batch_does_not_matter(embedder: Embedder) -> None:
    images = pictures(7)
    small = Embedder(embedder.tower, embedder.preparation, "same", batch=2)
    torch.testing.assert_close(small(images), embedder(images), rtol=0, atol=1e-5)
    torch.testing.assert_close(embedder(images.flip(0)).flip(0), embedder(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [64, 48, 200])
def test_it_prepares_pictures_as_open_clip_does(embedder: Embedder, side: int) -> None:
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{SHIPPED}", require_pretrained=True)
    images = pictures(3, side)
    prepared = torch.stack([preprocess(Image.fromarray(np.asarray(image.permute(1, 2, 0)))) for image in images])
    wanted = reference(embedder, prepared)
    assert float((embedder(images) - wanted).norm(dim=1).max()) < (1e-5 if side == 64 else 0.02)


def reference(embedder: Embedder, prepared: Tensor) -> Tensor:
    """The four residual stages of the shipped model, block by block: what they see on the whole, and how every place differs from it."""
    tower, vectors = embedder.tower, []
    with torch.inference_mode():
        features = tower.stem(prepared)
        for stage in (tower.layer1, tower.layer2, tower.layer3, tower.layer4):
            features = stage(features)
            size = features.shape[-1]
            small = features.unflatten(2, (-1, size // 8)).unflatten(4, (-1, size // 8)).mean(dim=(3, 5)) if size > 8 else features
            mean = small.mean(dim=(2, 3))
            differing = (small - mean[:, :, None, None]).flatten(2)
            unit = differing / differing.norm(dim=1, keepdim=True) / differing.shape[2] ** 0.5
            whole = mean / mean.norm(dim=1, keepdim=True)
            vectors.append(torch.cat([whole[:, :, None], unit], dim=2).flatten(1) / 8**0.5)
    return torch.cat(vectors, dim=1)


@pytest.mark.parametrize("vision", [{"layers": 5, "width": 64, "patch_size": 16}, {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16}])
def test_towers_of_either_kind(vision: dict[str, object]) -> None:
    """With random weights: a transformer's five blocks and a residual network's stages both give unit vectors of four levels."""
    text = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=16, vision_cfg={"image_size": 64, **vision}, text_cfg=text)
    open_clip.set_model_preprocess_cfg(model, {"size": 64, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"})
    found = open_clip_embedder(model, "random")(pictures(3))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert found.shape[1] == (4 * 17 * 64 if "patch_size" in vision else 32 * 65 + 64 * 65 + 128 * 17 + 256 * 5)


def test_it_names_where_it_came_from(embedder: Embedder) -> None:
    assert embedder.name == str(SHIPPED)
    assert embedder.preparation.size == 64
    assert not any(parameter.requires_grad for parameter in embedder.parameters())
    assert not embedder.tower.training


def test_everything_lies_where_the_model_lies() -> None:
    elsewhere = Embedder(shipped().tower.to("meta"), shipped().preparation, "elsewhere")
    assert {elsewhere.device.type, elsewhere.mean.device.type, elsewhere.std.device.type} == {"meta"}


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError) as caught:
        load_embedder(tmp_path)
    missing = "no model of open_clip or timm here (open_clip_config.json or config.json is missing)"
    assert str(caught.value) == f"{tmp_path}: {missing} — give the folder of one"


def test_a_folder_without_weights(tmp_path: Path) -> None:
    """open_clip alone would go on with random ones."""
    shutil.copy(SHIPPED / "open_clip_config.json", tmp_path)
    with pytest.raises(
        EmbedderError, match=r"^[^\n]+: the embedder cannot be loaded: Required pretrained weights .* — give a complete folder"
    ):
        load_embedder(tmp_path)


@pytest.mark.parametrize("name", ["open_clip_config.json", "open_clip_model.safetensors"])
def test_a_damaged_folder(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(SHIPPED, tmp_path / "embedder")
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(EmbedderError, match=r"^[^\n]+embedder: the embedder cannot be loaded: [^\n]+ — give a complete folder"):
        load_embedder(folder)


@pytest.mark.parametrize("spec", ["nowhere", "/no/such/folder", "no/such", "a/b/c"])
def test_a_name_that_open_clip_does_not_know(spec: str) -> None:
    with pytest.raises(EmbedderError) as caught:
        load_embedder(spec)
    remedy = "give a folder, MODEL/PRETRAINED, hf-hub:ORGANISATION/NAME or timm:MODEL"
    assert str(caught.value) == f"{spec}: neither a folder nor a model that open_clip knows — {remedy}"


def test_a_misspelt_model_is_corrected() -> None:
    with pytest.raises(EmbedderError, match=r"^ViT-B32/openai: neither a folder nor a model that open_clip knows; ViT-B-32 is one — give"):
        load_embedder("ViT-B32/openai")


@pytest.mark.parametrize("spec", ["ViT-B-32/laion3b", "ViT-B-32"])
def test_weights_that_open_clip_does_not_know(spec: str) -> None:
    with pytest.raises(EmbedderError, match=r"open_clip has no weights '\w*' for ViT-B-32 — choose from openai, .*laion2b_s34b_b79k"):
        load_embedder(spec)


def test_a_hub_name_when_offline(tmp_path: Path) -> None:
    """In a process of its own, as the hub's client reads these settings when it is imported; any connection is an error there."""
    code = """
import socket
from objectives import EmbedderError, load_embedder
def refuse(*arguments):
    raise SystemExit("the network was touched")
socket.socket.connect = socket.getaddrinfo = refuse
for spec in ("ViT-B-32/laion2b_s34b_b79k", "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"):
    try:
        load_embedder(spec)
    except EmbedderError as error:
        print(error)
"""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(": the embedder cannot be loaded: ")[0] for line in lines] == [
        "ViT-B-32/laion2b_s34b_b79k",
        "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    ]
    assert all(line.endswith(" — give a complete folder, or go online once") for line in lines)
