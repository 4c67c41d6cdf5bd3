"""Compositions and solved routers on tiny pipelines of every family: exact teachers, untouched weights, files that diffusers reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.adapters import Adapter, Factors, load_adapter, save_adapter
from optimizer.calibration import SOLVED
from optimizer.calibration.compositions import Composition
from optimizer.calibration.live_model import LiveModel
from optimizer.calibration.solve import solve
from optimizer.calibration.training import Training, mean_loss, train
from optimizer.calibration.trajectories import Points, record
from optimizer.errors import RecipeError, TrialError
from optimizer.merging import Recipe, merge
from optimizer.rendering import Prompt, PromptSet, Renderer, RenderSettings, Subject
from tests.tiny import tiny_flux_pipeline, tiny_pipeline, tiny_sd3_pipeline, tiny_v2_pipeline, tiny_xl_pipeline

KINDS: dict[str, tuple[str, Callable[[], DiffusionPipeline]]] = {
    "sd1": ("sd1", tiny_pipeline),
    "sd2": ("sd2", tiny_v2_pipeline),
    "sdxl": ("sdxl", tiny_xl_pipeline),
    "sd3": ("sd3", tiny_sd3_pipeline),
    "flux dev": ("flux1", tiny_flux_pipeline),
    "flux schnell": ("flux1", lambda: tiny_flux_pipeline(guidance=False)),
}
SUBJECTS = (Subject("hero", "character", "hero"), Subject("ink", "style", ""))
PROMPTS = PromptSet((Prompt("a red fox", 1, 0), Prompt("an owl", 2, 0), Prompt("the sea", 3, 1), Prompt("a fox, at sea", 4, None)))


def random_adapter(name: str, renderer: Renderer, base: str, rank: int, seed: int, size: float = 0.15) -> Adapter:
    """A random change of every module that an adapter may change and diffusers reads: it reads none of T5."""
    draw = torch.Generator().manual_seed(seed)
    modules = {}
    for path, weight in renderer.weights.items():
        if path.startswith("text_encoder_3." if base == "sd3" else "text_encoder_2." if base == "flux1" else "-"):
            continue
        shape = tuple(weight.shape)
        fan = weight[0].numel()
        up, down = torch.randn(shape[0], rank, generator=draw), torch.randn(rank, fan, generator=draw)
        modules[path] = Factors(size * up / rank**0.5, down / fan**0.5, float(rank), shape)
    return Adapter(name=name, modules=modules, base=base)


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest) -> tuple[Renderer, list[Adapter]]:
    base, build = KINDS[request.param]
    guidance = 0.0 if "schnell" in request.param else 2.0
    renderer = Renderer(build(), RenderSettings(steps=2, guidance=guidance, resolution=32, batch=3))
    return renderer, [random_adapter("hero", renderer, base, 2, 1), random_adapter("ink", renderer, base, 3, 2)]


def live(made: tuple[Renderer, list[Adapter]]) -> LiveModel:
    return LiveModel.of(made[0], made[1], SUBJECTS)


def recorded(model: LiveModel) -> Points:
    return record(model, Composition((1.0, 1.0)), PROMPTS.prompts)


def test_gains_of_zero_draw_the_base_and_leave_it_untouched(made: tuple[Renderer, list[Adapter]]) -> None:
    renderer, model = made[0], live(made)
    base = renderer.render(PROMPTS.prompts)
    assert torch.equal(renderer.render(PROMPTS.prompts, model.composed(Composition((0.0, 0.0)))), base)
    composed = renderer.render(PROMPTS.prompts, model.composed(Composition((1.0, 1.0))))
    assert not torch.equal(composed, base)
    assert torch.equal(renderer.render(PROMPTS.prompts), base)
    assert not any(module._forward_hooks for module in model.denoiser.model.modules())
    assert "forward" not in model.denoiser.model.__dict__


def test_one_source_composes_to_what_its_merge_into_the_weights_draws(made: tuple[Renderer, list[Adapter]]) -> None:
    renderer, model = made[0], live(made)
    joint = [replace(prompt, source=None) for prompt in PROMPTS.prompts]
    composed = renderer.render(joint, model.composed(Composition((0.0, 1.0))))
    alone = renderer.render(joint, made[1][1])
    assert (composed.int() - alone.int()).abs().max() <= 1


def test_own_prompts_ask_for_their_source_and_for_those_without_a_trigger(made: tuple[Renderer, list[Adapter]]) -> None:
    assert live(made).asked(PROMPTS.prompts).tolist() == [[True, True], [True, True], [False, True], [True, True]]


def test_a_source_alone_says_what_the_composition_says_where_only_it_is_asked_for(made: tuple[Renderer, list[Adapter]]) -> None:
    model = live(made)
    points = recorded(model)
    assert len(points) == 8
    ink = (points.prompt == 2).nonzero()[:, 0]
    assert mean_loss(model, points, ink, model.modules.alone(1)) < 1e-8
    assert mean_loss(model, points, ink, {}) > 1e-6


def test_training_approaches_the_teacher_and_changes_no_weight(made: tuple[Renderer, list[Adapter]]) -> None:
    model = live(made)
    points = recorded(model)
    weights = {name: tensor.clone() for name, tensor in model.denoiser.model.state_dict().items()}
    start = model.modules.selected([False, False])
    moments = {path: torch.eye(sum(ranks)).double() for path, ranks in model.modules.ranks.items()}
    every = torch.arange(len(points))
    before = mean_loss(model, points, every, start)
    *_, last = train(model, points, start, moments, Training(steps=12, rate=0.1, batch=4))
    assert mean_loss(model, points, every, last.routing()) < 0.8 * before
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.denoiser.model.state_dict().items())
    assert not any(parameter.grad is not None for parameter in model.denoiser.model.parameters())


@pytest.mark.parametrize("method", ["iteris", "distill"])
def test_a_solved_file_draws_what_the_live_model_draws(made: tuple[Renderer, list[Adapter]], method: str, tmp_path: Path) -> None:
    renderer, adapters = made
    model = live(made)
    told: list[tuple[str, int, int, float]] = []
    found = solve(method, model, adapters, PROMPTS, steps=2, progress=lambda *now: told.append(now))
    assert {what for what, *_ in told} >= {"drawing", "measuring"}
    merged = merge(adapters, Recipe(method="routed", weights=(1, 1), calibration=found.router.hash), routers=[found.router])
    file = tmp_path / "merged.safetensors"
    save_adapter(merged, file, dialect="diffusers", dtype=torch.float32)
    drawn = renderer.render(PROMPTS.prompts, renderer.fit_adapter(load_adapter(file)))
    effect = distance(drawn, renderer.render(PROMPTS.prompts))
    assert effect > 1
    assert distance(drawn, by_diffusers(renderer, file)) < 0.05 * effect


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean absolute difference of pixel values, 0 to 255."""
    return float((first.float() - second.float()).abs().mean())


def by_diffusers(renderer: Renderer, file: Path) -> torch.Tensor:
    """What the base draws when diffusers itself loads the file."""
    pipeline: Any = renderer.pipeline
    pipeline.load_lora_weights(file)
    try:
        return Renderer(pipeline, renderer.settings).render(PROMPTS.prompts)
    finally:
        pipeline.unload_lora_weights()


def test_an_unknown_method_is_refused(made: tuple[Renderer, list[Adapter]]) -> None:
    with pytest.raises(RecipeError, match=r"'ties' is not solved on the live model.*choose from ssr, iteris, zip, distill"):
        solve("ties", live(made), made[1], PROMPTS)


def test_out_of_memory_makes_the_batch_smaller_and_changes_nothing_else(
    made: tuple[Renderer, list[Adapter]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = live(made)
    points = recorded(model)
    start = model.modules.selected([True, True])
    moments = {path: torch.eye(sum(ranks)).double() for path, ranks in model.modules.ranks.items()}
    plain = list(train(model, points, start, moments, Training(steps=2, batch=4)))
    compute, limit = type(model.denoiser).compute, 2 if model.guided else 1

    def scarce(self: Any, call: Any) -> torch.Tensor:
        if len(call.sample) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, call)

    monkeypatch.setattr(type(model.denoiser), "compute", scarce)
    small = list(train(model, points, start, moments, Training(steps=2, batch=4)))
    assert small[-1].loss == pytest.approx(plain[-1].loss, rel=1e-3)
    limit = 0
    with pytest.raises(TrialError, match="out of memory with one point at a time and gradient checkpointing"):
        list(train(model, points, start, moments, Training(steps=2, batch=4)))


def test_checkpointing_trains_what_is_trained_without_it(made: tuple[Renderer, list[Adapter]]) -> None:
    model = live(made)
    points = recorded(model)
    start = model.modules.selected([True, True])
    moments = {path: torch.eye(sum(ranks)).double() for path, ranks in model.modules.ranks.items()}
    plain = list(train(model, points, start, moments, Training(steps=2, batch=2)))
    model.denoiser.save_memory()  # until the training ends
    saving = list(train(model, points, start, moments, Training(steps=2, batch=2)))
    assert saving[-1].loss == pytest.approx(plain[-1].loss, rel=1e-3)
    one, two = plain[-1].routing(), saving[-1].routing()
    assert all(torch.allclose(one[path], two[path], atol=1e-4) for path in one)


@pytest.mark.parametrize("method", SOLVED)
def test_solving_again_gives_the_same_router(method: str) -> None:
    renderer = Renderer(tiny_pipeline(), RenderSettings(steps=2, guidance=2.0, resolution=32))
    adapters = [random_adapter("hero", renderer, "sd1", 2, 1), random_adapter("ink", renderer, "sd1", 3, 2)]
    found = [solve(method, LiveModel.of(renderer, adapters, SUBJECTS), adapters, PROMPTS, steps=2, seed=3).router for _ in range(2)]
    assert found[0].hash == found[1].hash
