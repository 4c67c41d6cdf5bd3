"""All weights of another model in a live pipeline: its own pictures while they are in, gone without a trace when they are out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from optimizer.checkpoints.folder import Folder
from optimizer.errors import BaseModelError
from optimizer.merging import Recipe
from optimizer.merging.models import Blend, Job
from optimizer.rendering import Prompt, Renderer, RenderSettings, load_pipeline
from optimizer.rendering.candidates.in_place import InPlace
from optimizer.rendering.memory.placement import Placement
from optimizer.rendering.pipeline_class import models_of
from tests.tiny import tiny_flux_pipeline, tiny_pipeline, tiny_sd3_pipeline, tiny_xl_pipeline

KINDS: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd1": tiny_pipeline,
    "sdxl": tiny_xl_pipeline,
    "sd3": tiny_sd3_pipeline,
    "flux1": tiny_flux_pipeline,
}
SETTINGS = RenderSettings(steps=2, resolution=32)
PROMPTS = (Prompt("a red fox", 1), Prompt("a blue hat", 2))
PLACEMENT = Placement(torch.device("cpu"), torch.float32)


def trained(kind: str, place: Path, seed: int) -> Path:
    """The tiny pipeline of a kind after a training of denoiser and text encoders."""
    pipeline = KINDS[kind]()
    shaken(pipeline, seed)
    pipeline.save_pretrained(place)
    return place


def shaken(pipeline: Any, seed: int) -> None:
    """Change all weights but the autoencoder's a little."""
    draw = torch.Generator().manual_seed(seed)
    for part, model in models_of(pipeline).items():
        for weight in model.parameters() if part != "vae" else ():
            weight.data.add_(0.05 * torch.randn(weight.shape, generator=draw))


def renderer(place: Path, **placement: Any) -> Renderer:
    return Renderer(load_pipeline(place, device="cpu", dtype=torch.float32), SETTINGS, placement=replace(PLACEMENT, **placement))


def everything(drawer: Renderer) -> dict[str, torch.Tensor]:
    parts = models_of(drawer.pipeline).items()
    return {f"{part}.{name}": tensor.clone() for part, model in parts for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_draws_in_another_as_by_itself(kind: str, compiled: bool, tmp_path: Path) -> None:
    """``compiled`` writes over the base's numbers, as compiled models want it."""
    base, other = trained(kind, tmp_path / "base", 1), trained(kind, tmp_path / "other", 2)
    drawer = renderer(base, compiled=compiled)
    before, plain = everything(drawer), drawer.render(PROMPTS)
    drawn = drawer.render(PROMPTS, Folder(other))
    assert torch.equal(drawn, renderer(other).render(PROMPTS))
    assert not torch.equal(drawn, plain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in everything(drawer).items())
    assert torch.equal(drawer.render(PROMPTS), plain)


def test_a_blend_draws_as_its_file_will(tmp_path: Path) -> None:
    """Rounded to the number format that it would have on the disk, and then to the pipeline's."""
    places = [trained("sd1", tmp_path / name, seed) for seed, name in enumerate(("base", "anna", "bert"))]
    base, *models = map(Folder, places)
    blend = Blend(Job(tuple(models), base=base, recipe=Recipe(method="ties", weights=(0.7, 0.9), density=0.5), dtype="F16"))
    models[0].write(blend, tmp_path / "merged", dtype="F16")
    assert torch.equal(renderer(places[0]).render(PROMPTS, blend), renderer(tmp_path / "merged").render(PROMPTS))


def test_what_fails_half_way_leaves_the_base_as_it_was(tmp_path: Path) -> None:
    base, wide = trained("sd1", tmp_path / "base", 1), tmp_path / "wide"
    tiny_pipeline(widths=(16, 16, 24, 32)).save_pretrained(wide)
    drawer = renderer(base)
    before = everything(drawer)
    with pytest.raises(BaseModelError, match=r"unet\..* has shape \(32.* in the base \(24.* — use models and a base of one family"):
        drawer.render(PROMPTS, Folder(wide))
    with pytest.raises(BaseModelError, match=r"is not in the base — use models"):
        renderer(trained("sdxl", tmp_path / "xl", 1)).render(PROMPTS, Folder(base))
    assert all(torch.equal(tensor, before[name]) for name, tensor in everything(drawer).items())
    assert isinstance(drawer._way, InPlace)
