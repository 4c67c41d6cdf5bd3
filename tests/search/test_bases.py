"""The whole job on tiny pipelines of every family: search, confirmation, and a file that diffusers draws the same pictures with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer import optimize
from optimizer.adapters import Adapter, Factors, load_adapter, save_adapter
from optimizer.rendering import Prompt, Renderer, RenderSettings, base_weights, load_pipeline
from studies.demo.world import demo_embedder
from tests.ldm import save_single_file
from tests.rendering.pipelines.test_quantisation import tiny_decoder
from tests.rendering.pipelines.test_single_file import unlike
from tests.tiny import tiny_flux_pipeline, tiny_pipeline, tiny_sd3_pipeline, tiny_v2_pipeline, tiny_xl_pipeline

pytestmark = pytest.mark.slow
KINDS: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd1": tiny_pipeline,
    "sd2": tiny_v2_pipeline,
    "sdxl": tiny_xl_pipeline,
    "sd3": tiny_sd3_pipeline,
    "flux1": tiny_flux_pipeline,
}
CHANGED = ("attn1.to_q", "attn1.to_out.0", "self_attn.q_proj", "attn.to_q", "attn.to_out.0", "ff.net.2")
PROMPTS = [Prompt("a red fox", 1), Prompt("a blue owl", 2)]


def source(base: str, pipeline: DiffusionPipeline, path: Path, rank: int, seed: int) -> Path:
    """A LoRA file for attention layers in denoiser and text encoder."""
    draw = torch.Generator().manual_seed(seed)
    modules = {
        name: Factors(
            torch.randn(w.shape[0], rank, generator=draw), torch.randn(rank, w[0].numel(), generator=draw), rank / 4, tuple(w.shape)
        )
        for name, w in base_weights(pipeline).items()
        if name.endswith(CHANGED)
    }
    return save_adapter(Adapter(path.stem, modules, base=base), path, dialect="kohya")


def options(folder: Path, base: str) -> dict[str, Any]:
    pipeline = KINDS[base]()
    pipeline.save_pretrained(folder / "base")
    sources = [source(base, pipeline, folder / f"{name}.safetensors", 2 + i, i) for i, name in enumerate(("anna", "bert"))]
    (folder / "words.yaml").write_text("subjects: [a ball, a cube]\nsettings: [at sea, in snow]\n")
    few = {"own": 1, "joint": 1, "confirm": 1, "finalists": 1, "steps": 2, "resolution": 32, "device": "cpu", "dialect": "diffusers"}
    words = {"prompts": folder / "words.yaml", "roles": ("style", "character"), "triggers": ("", "zig")}
    return {"sources": sources, "base": folder / "base", "embedder": demo_embedder(), "out": folder / "study", "budget": 3, **few, **words}


@pytest.mark.parametrize("base", ["sd2", "sdxl", "sd3", "flux1"])
def test_from_sources_to_a_file_that_diffusers_reads(tmp_path: Path, base: str) -> None:
    study = optimize(**options(tmp_path, base))
    assert study.complete
    assert [t.state for t in study.trials] == ["COMPLETE"] * 7
    assert len({t.evaluation.score for t in study.trials if t.evaluation}) > 3
    assert study.best is not None
    settings = RenderSettings(steps=2, resolution=32)
    renderer = Renderer(load_pipeline(tmp_path / "base", device="cpu", dtype=torch.float32), settings)
    ours = renderer.render(PROMPTS, load_adapter(study.best))
    theirs: Any = load_pipeline(tmp_path / "base", device="cpu", dtype=torch.float32)
    theirs.load_lora_weights(study.best.parent, weight_name=study.best.name)
    drawn = Renderer(theirs, settings).render(PROMPTS)
    assert (ours.float() - renderer.render(PROMPTS).float()).abs().mean() > 1
    assert (ours.int() - drawn.int()).abs().max() <= 2


@pytest.mark.parametrize("base", ["sd1", "sdxl"])
def test_from_a_single_file_as_from_its_folder(tmp_path: Path, base: str) -> None:
    asked = options(tmp_path, base)
    pipeline = unlike(KINDS[base](), width=8) if base == "sdxl" else KINDS[base]()
    pipeline.save_pretrained(tmp_path / "base")
    asked["sources"] = [source(base, pipeline, tmp_path / f"{name}.safetensors", 2 + i, i) for i, name in enumerate(("anna", "bert"))]
    file = save_single_file(pipeline, tmp_path / "one.safetensors")
    study = optimize(**asked | {"base": file, "base_config": tmp_path / "base"})
    same = optimize(**asked | {"out": tmp_path / "same"})
    assert study.complete
    assert study.best is not None
    assert [t.evaluation.score for t in study.trials if t.evaluation] == pytest.approx(
        [t.evaluation.score for t in same.trials if t.evaluation], abs=0.02
    )
    again = optimize(**asked | {"base": file, "base_config": tmp_path / "base"})
    assert again.summary == study.summary


def test_a_quantised_base_whose_search_draws_drafts(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    tiny_decoder().save_pretrained(tmp_path / "taef1")
    asked = options(tmp_path, "flux1")
    study = optimize(**asked | {"quantize": "int8", "decoder": tmp_path / "taef1"})
    assert study.complete
    assert study.best is not None
    assert [t.state for t in study.trials] == ["COMPLETE"] * 7
    assert len({t.evaluation.score for t in study.trials if t.evaluation}) > 3
    plain = optimize(**asked | {"quantize": "int8", "out": tmp_path / "plain"})
    drafts, pictures = ((folder / "images/baselines/base/000.png").read_bytes() for folder in (study.directory, plain.directory))
    assert drafts != pictures
    last, whole = ((folder / "images/confirmation/base/000.png").read_bytes() for folder in (study.directory, plain.directory))
    assert last == whole
