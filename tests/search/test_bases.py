"""The whole job on tiny pipelines of every family: search, confirmation, and a file that diffusers draws the same pictures with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer import optimize
from optimizer.adapters import Adapter, Factors, load_adapter, save_adapter
from optimizer.rendering import Prompt, Renderer, RenderSettings, base_weights, load_pipeline
from studies.demo.world import demo_embedder
from tests.tiny import tiny_flux_pipeline, tiny_sd3_pipeline, tiny_xl_pipeline

pytestmark = pytest.mark.slow
KINDS = {"sdxl": tiny_xl_pipeline, "sd3": tiny_sd3_pipeline, "flux1": tiny_flux_pipeline}
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


@pytest.mark.parametrize("base", KINDS)
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
