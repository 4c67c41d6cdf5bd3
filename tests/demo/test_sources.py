"""Training sources: small sets with captions, and files that the peers' loaders read in every dialect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from optimizer.adapters import fit_shapes, load_adapter, weight_shapes
from studies.demo.base_model.base import assemble, new_text_encoder, new_unet
from studies.demo.base_model.tokenizer import build_tokenizer
from studies.demo.base_model.vae import new_vae
from studies.demo.sources import SOURCES, train_source, training_set


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo base's own architecture with random weights."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    tokenizer = build_tokenizer(folder / "words")
    pipeline = assemble(new_vae(), tokenizer, new_text_encoder(tokenizer), new_unet())
    pipeline.save_pretrained(folder / "base")
    return folder / "base"


def test_specs_cover_roles_ranks_targets_and_dialects() -> None:
    specs = list(SOURCES.values())
    roles = [s.role for s in specs]
    assert roles.count("style") >= 2
    assert roles.count("character") >= 3
    assert roles.count("concept") >= 1
    assert {s.dialect for s in specs} == {"kohya", "diffusers", "loha"}
    assert {4, 8, 16} <= {s.rank for s in specs}
    assert any(s.alpha != s.rank for s in specs)
    assert any(s.text for s in specs)
    assert len({s.targets for s in specs}) >= 3


@pytest.mark.parametrize("name", list(SOURCES))
def test_training_set_is_small_and_captioned(name: str) -> None:
    spec = SOURCES[name]
    pictures, captions = training_set(spec)
    assert 10 <= len(pictures) == len(captions) <= 40
    if spec.trigger:
        assert all(spec.trigger in caption for caption in captions)
    again, _ = training_set(spec)
    assert (pictures == again).all()


@pytest.mark.parametrize("name", ["octopus", "owl", "pencil"])
def test_written_file_is_the_trained_change(name: str, base: Path, tmp_path: Path) -> None:
    """One step of training per dialect; the file, read back, changes the weights as the live peft adapter does."""
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    spec = replace(SOURCES[name], steps=2, pictures=4)
    adapter = load_adapter(train_source(spec, pipeline, tmp_path, 1.0))
    plain = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    fitted = fit_shapes(adapter, weight_shapes({"unet": plain.unet, "text_encoder": plain.text_encoder}))
    for path in list(fitted.modules)[::17]:
        part, _, module = path.partition(".")
        live = getattr(pipeline, part).get_submodule(module.removeprefix("text_model."))
        change = live.get_delta_weight("default").detach().reshape(fitted.modules[path].shape)
        difference = torch.linalg.norm(fitted.modules[path].delta() - change)
        assert difference <= 5e-3 * torch.linalg.norm(change) + 1e-6, path
