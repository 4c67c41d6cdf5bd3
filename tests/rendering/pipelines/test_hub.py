"""Models of the hub: taken from this machine's cache, never fetched; what is not there is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from optimizer.adapters.files.base_location import locate_base
from optimizer.errors import BaseModelError
from optimizer.rendering import Loading, Prompt, RenderSettings, load_renderer
from tests.tiny import tiny_pipeline

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as huggingface_hub lays it out, with one model: blobs, links to them by commit, and the commit that ``main`` is."""
    place = tmp_path / "hub"
    model = place / "models--lab--tiny-sd"
    tiny_pipeline().save_pretrained(tmp_path / "saved")
    for file in (path for path in (tmp_path / "saved").rglob("*") if path.is_file()):
        name = file.relative_to(tmp_path / "saved")
        blob, link = model / "blobs" / str(name).replace("/", "-"), model / "snapshots" / COMMIT / name
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link.symlink_to(blob)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place))
    return place


def test_a_model_in_the_cache_draws_as_its_folder(cache: Path, tmp_path: Path) -> None:
    settings, prompts = RenderSettings(steps=2), [Prompt("a red fox", 1)]
    found, wanted = (
        load_renderer(base, settings, Loading(device="cpu")).render(prompts) for base in ("lab/tiny-sd", str(tmp_path / "saved"))
    )
    assert torch.equal(found, wanted)
    assert locate_base("lab/tiny-sd@main") == locate_base(f"lab/tiny-sd@{COMMIT}") == locate_base("lab/tiny-sd")


def test_what_is_not_there_is_not_fetched(cache: Path) -> None:
    with pytest.raises(BaseModelError) as caught:
        locate_base("lab/other")
    assert str(caught.value) == (
        f"lab/other: neither a folder nor a file, and no model of this name is in the local cache {cache} — "
        "check the path, or fetch it once: hf download lab/other"
    )
    with pytest.raises(BaseModelError, match=r"fetch it once: hf download lab/tiny-sd --revision v2$"):
        locate_base("lab/tiny-sd@v2")
    with pytest.raises(BaseModelError, match=r"^no/such/folder: does not exist — give a diffusers folder, a \.safetensors file, or ORG"):
        locate_base("no/such/folder")


def test_a_model_of_which_only_a_part_was_fetched(cache: Path) -> None:
    shutil.rmtree(next(cache.glob("models--*/snapshots/*")) / "unet")
    with pytest.raises(BaseModelError, match="the pipeline is incomplete: unet missing — fetch the whole folder again"):
        load_renderer("lab/tiny-sd", RenderSettings(), Loading(device="cpu"))


def test_a_weight_whose_download_broke_off(cache: Path) -> None:
    blob = next(cache.glob("models--*/blobs/unet-*.safetensors"))
    blob.write_bytes(blob.read_bytes()[:1000])
    with pytest.raises(BaseModelError, match="the pipeline cannot be loaded: "):
        load_renderer("lab/tiny-sd", RenderSettings(), Loading(device="cpu"))
