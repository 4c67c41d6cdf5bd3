"""Low-rank branches beside the weights: the same pictures as in the weights, the base never touched, nothing compiled anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from optimizer.adapters import Adapter, Factors, weight_shapes
from optimizer.errors import BaseModelError
from optimizer.rendering import Prompt, Renderer, RenderSettings
from optimizer.rendering.families import models_of
from optimizer.rendering.memory.placement import Placement
from tests.tiny import tiny_flux_pipeline, tiny_pipeline, tiny_sd3_pipeline, tiny_xl_pipeline

PROMPTS = [Prompt("a red fox", 1), Prompt("an owl", 2), Prompt("snow", 3)]
SETTINGS = RenderSettings(steps=2, guidance=3.0, resolution=32, batch=2)
BRANCH = Placement(torch.device("cpu"), torch.float32, branch=True)
KINDS: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd1": tiny_pipeline,
    "sdxl": tiny_xl_pipeline,
    "sd3": tiny_sd3_pipeline,
    "flux": tiny_flux_pipeline,
}


def change(pipeline: DiffusionPipeline, rank: int = 3, seed: int = 0, strength: float = 0.05) -> Adapter:
    """A change of every module that an adapter may change."""
    draw = torch.Generator().manual_seed(seed)
    modules = {}
    for path, shape in weight_shapes(models_of(pipeline)).items():
        up, down = torch.randn(shape[0], rank, generator=draw), torch.randn(rank, Tensor().new_empty(shape[1:]).numel(), generator=draw)
        modules[path] = Factors(strength * up, strength * down, 2.0 * rank, shape)
    return Adapter("change", modules)


def base_state(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    """The base's own tensors, under the names that they have without branches."""
    return {
        f"{part}.{name}".replace(".base_layer", ""): tensor.clone()
        for part, model in models_of(pipeline).items()
        for name, tensor in model.state_dict().items()
        if "lora_" not in name
    }


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def farthest(first: Tensor, second: Tensor) -> int:
    return int((first.int() - second.int()).abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_the_sums_in_the_weights(kind: str) -> None:
    wanted, other = Renderer(KINDS[kind](), SETTINGS), KINDS[kind]()
    before, renderer = base_state(other), Renderer(other, SETTINGS, placement=BRANCH)
    for seed in (1, 2):
        adapter = change(wanted.pipeline, seed=seed)
        drawn = renderer.render(PROMPTS, adapter)
        assert farthest(drawn, wanted.render(PROMPTS, adapter)) <= 1
        assert farthest(drawn, wanted.render(PROMPTS)) > 5
        assert same(base_state(other), before)
    assert farthest(renderer.render(PROMPTS), wanted.render(PROMPTS)) <= 1, "after a candidate the branches hold nothing"


def test_candidates_of_any_rank_and_of_other_modules_follow_each_other() -> None:
    wanted, renderer = Renderer(tiny_pipeline(), SETTINGS), Renderer(tiny_pipeline(), SETTINGS, placement=BRANCH)
    wide, slim = change(wanted.pipeline, rank=5), change(wanted.pipeline, rank=2, seed=1)
    few = replace(slim, modules={path: factors for path, factors in slim.modules.items() if "to_k" in path})
    texts = replace(slim, modules={path: factors for path, factors in slim.modules.items() if path.startswith("text_encoder")})
    for adapter in (few, slim, wide, few, texts, None):
        assert farthest(renderer.render(PROMPTS, adapter), wanted.render(PROMPTS, adapter)) <= 1


def test_an_adapter_that_does_not_fit_changes_nothing() -> None:
    pipeline = tiny_pipeline()
    before, renderer = base_state(pipeline), Renderer(pipeline, SETTINGS, placement=BRANCH)
    with pytest.raises(BaseModelError, match=r"does not fit the base model: unet\.conv_in: the adapter changes a weight of shape"):
        renderer.render(PROMPTS, change(tiny_pipeline(widths=(32, 32, 24, 24))))
    assert same(base_state(pipeline), before)


@pytest.mark.parametrize("branch", [False, True], ids=["weights", "branch"])
def test_a_compiled_model_is_not_compiled_anew_for_another_candidate(branch: bool) -> None:
    torch.compiler.reset()
    pipeline: Any = tiny_pipeline()
    adapters = [change(pipeline, rank=rank, seed=rank) for rank in (4, 2, 3)]
    plain = [Renderer(pipeline, SETTINGS).render(PROMPTS, adapter) for adapter in (*adapters, None)]
    before = base_state(pipeline)
    pipeline.unet.compile(backend="eager", dynamic=False)
    renderer = Renderer(pipeline, SETTINGS, placement=replace(BRANCH, branch=branch, compiled=True))
    first = renderer.render(PROMPTS, adapters[0])
    with torch.compiler.set_stance("fail_on_recompile"):
        rest = [renderer.render(PROMPTS, adapter) for adapter in (*adapters[1:], None)]
    for found, wanted in zip([first, *rest], plain, strict=True):
        assert farthest(found, wanted) <= 1
    assert same(base_state(pipeline), before)
    torch.compiler.reset()
