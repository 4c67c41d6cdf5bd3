"""The demo world as it is installed: a base that diffusers loads, sources that fit it, and all of it small."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline

from optimizer.adapters import load_adapter, shape_mismatches, weight_shapes
from optimizer.adapters.shapes import Shapes
from optimizer.errors import UsageError
from optimizer.rendering import ROLES
from studies.demo.words import words
from studies.demo.world import ASSETS, PREFIX, UnknownDemoSource, demo_base, demo_embedder, demo_source, demo_sources, demo_words

LIMIT = 32 * 2**20
SPECS = ("neon", "mosaic", "pencil", "robot", "octopus", "owl", "hat")

needs_base = pytest.mark.skipif(not (demo_base() / "model_index.json").is_file(), reason="the demo base is not built yet")
needs_sources = pytest.mark.skipif(not (ASSETS / "sources/sources.json").is_file(), reason="the demo sources are not built yet")


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    pipeline = StableDiffusionPipeline.from_pretrained(demo_base(), local_files_only=True)
    return weight_shapes({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})


def test_everything_together_is_small() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= LIMIT


def test_nothing_in_it_can_run_code() -> None:
    kinds = {path.suffix for path in ASSETS.rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".txt", ".yaml"}


def test_it_names_no_folder_of_the_machine_that_built_it() -> None:
    assert not [path for path in ASSETS.rglob("*.json") if "_name_or_path" in path.read_text(encoding="utf-8")]


@needs_base
def test_plain_diffusers_loads_the_base_in_one_number_format() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(demo_base(), local_files_only=True)
    parts = (pipeline.unet, pipeline.text_encoder, pipeline.vae)
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {torch.float32}


@needs_base
def test_the_base_is_an_ordinary_pipeline_with_the_layout_of_sd_15(shapes: Shapes) -> None:
    config = json.loads((demo_base() / "unet/config.json").read_text())
    assert config["down_block_types"] == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert config["layers_per_block"] == 2
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k" in shapes


@needs_sources
def test_the_index_names_every_source_its_role_and_its_trigger() -> None:
    found = demo_sources()
    assert set(found) == set(SPECS)
    assert {source.role for source in found.values()} == set(ROLES)
    assert {path.name for path in (ASSETS / "sources").glob("*.safetensors")} == {source.path.name for source in found.values()}
    triggers = [source.trigger for source in found.values() if source.trigger]
    assert len(set(triggers)) == len(triggers)
    assert all(source.trigger for source in found.values() if source.role == "character")


@needs_base
@needs_sources
@pytest.mark.parametrize("name", SPECS)
def test_a_source_is_read_and_fits_the_base(name: str, shapes: Shapes) -> None:
    adapter = load_adapter(demo_sources()[name].path)
    assert adapter.coverage.unknown == {}
    assert shape_mismatches(adapter, shapes) == []


@needs_sources
def test_a_source_that_does_not_exist() -> None:
    with pytest.raises(UnknownDemoSource, match="there is no demo source 'nobody' — choose from demo:"):
        demo_source(f"{PREFIX}nobody")
    assert not issubclass(UnknownDemoSource, UsageError)  # this package knows nothing of the optimizer


def test_the_embedder_is_there() -> None:
    assert (demo_embedder() / "open_clip_config.json").is_file()


def test_the_words_are_those_that_the_base_learnt() -> None:
    assert yaml.safe_load(demo_words().read_text(encoding="utf-8")) == words()
    assert "a red ball" in words()["subjects"]
    assert "left, meadow" in words()["settings"]
