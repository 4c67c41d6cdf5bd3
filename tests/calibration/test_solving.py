"""Compositions and solved routers on tiny pipelines of every family: exact teachers, untouched weights, files that diffusers reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.adapters import Adapter, Dialect, Factors, load_adapter, save_adapter
from optimizer.calibration.compositions import Composition
from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.live.routed_candidate import RoutedCandidate
from optimizer.calibration.live.routed_modules import RoutedModules
from optimizer.calibration.solve import Enough, Solver
from optimizer.calibration.training import Training, mean_loss, train
from optimizer.calibration.trajectories import Points, record
from optimizer.errors import RecipeError, TrialError
from optimizer.merging import METHODS, Recipe, Router, correction_of, digest, merge, with_correction
from optimizer.rendering import NOTHING, Prompt, PromptSet, Renderer, RenderSettings, Subject
from tests.merging.samples import assert_same_change, random_router, relative_error
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


def test_prompts_without_a_trigger_ask_for_the_base_and_quieten_the_merge(made: tuple[Renderer, list[Adapter]]) -> None:
    subjects = (SUBJECTS[0], replace(SUBJECTS[1], trigger="inky"))
    model = LiveModel.of(made[0], made[1], subjects)
    neutral = (Prompt("a house", 5, NOTHING), Prompt("a tree", 6, NOTHING))
    assert model.asked(neutral).tolist() == [[False, False]] * 2
    points = record(model, model.teacher, neutral)
    every = torch.arange(len(points))
    assert mean_loss(model, points, every, {}) < 1e-10
    quiet = PromptSet(PROMPTS.prompts + neutral)
    moved = [
        mean_loss(model, points, every, Solver(model, made[1], prompts).solve(solvable("ssr")).routers[100].matrices)
        for prompts in (PROMPTS, quiet)
    ]
    assert moved[1] < 0.9 * moved[0]


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


@pytest.mark.parametrize(("method", "fields"), [("iteris", {}), ("distill", {}), ("distill", {"correction": 4})])
def test_a_solved_file_draws_what_the_live_model_draws(
    made: tuple[Renderer, list[Adapter]], method: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    renderer, adapters = made
    model = live(made)
    told: list[tuple[str, int, int, float]] = []
    recipe = solvable(method, **fields)
    router = Solver(model, adapters, PROMPTS).solve(recipe, progress=lambda *now: told.append(now)).routers[100]
    assert {what for what, *_ in told} >= {"drawing", "measuring"}
    merged = merge(adapters, recipe.replaced(calibration=router.hash), routers=[router])
    file = tmp_path / "merged.safetensors"
    save_adapter(merged, file, dialect="diffusers", dtype=torch.float32)
    drawn = renderer.render(PROMPTS.prompts, renderer.fit_adapter(load_adapter(file)))
    effect = distance(drawn, renderer.render(PROMPTS.prompts))
    assert effect > 1
    assert distance(drawn, by_diffusers(renderer, file)) < 0.05 * effect


def test_a_correction_changes_text_encoders_that_no_source_does(made: tuple[Renderer, list[Adapter]], tmp_path: Path) -> None:
    renderer, whole = made
    adapters = [replace(one, modules={p: f for p, f in one.modules.items() if not p.startswith("text_")}) for one in whole]
    model = LiveModel.of(renderer, adapters, SUBJECTS)
    recipe = solvable("distill", correction=4)
    router = Solver(model, adapters, PROMPTS).solve(recipe).routers[100]
    if any(".encoder.block." in path for path in renderer.shapes):  # T5
        assert not router.texts
        return
    assert set(router.texts) == {path for path in renderer.weights if ".text_model.encoder." in path}
    assert {router.ranks[path] for path in router.texts} == {(0, 0, 4)}
    assert any(router.matrices[path].any() for path in router.texts)  # SDXL reads a layer that is not the last
    merged = merge(adapters, recipe.replaced(calibration=router.hash), routers=[router])
    assert {*router.texts} <= {*merged.modules}
    file = tmp_path / "merged.safetensors"
    save_adapter(merged, file, dialect="diffusers", dtype=torch.float32)
    drawn = renderer.render(PROMPTS.prompts, renderer.fit_adapter(load_adapter(file)))
    assert distance(drawn, by_diffusers(renderer, file)) < 0.05 * distance(drawn, renderer.render(PROMPTS.prompts))


@pytest.mark.parametrize("dialect", ["kohya", "diffusers", "comfyui"])
def test_every_dialect_holds_a_corrected_merge(made: tuple[Renderer, list[Adapter]], dialect: Dialect, tmp_path: Path) -> None:
    adapters = [made[1][0], replace(made[1][1], modules={p: f for p, f in made[1][1].modules.items() if not p.startswith("text_")})]
    router = random_router(with_correction(adapters, 4))
    assert any(ranks[2] for ranks in router.ranks.values())
    merged = merge(adapters, Recipe(method="distill", weights=(1, 1), correction=4, calibration=router.hash), routers=[router])
    save_adapter(merged, tmp_path / "merged.safetensors", dialect=dialect, dtype=torch.float32)
    assert_same_change(load_adapter(tmp_path / "merged.safetensors"), merged, tolerance=1e-6)


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
    with pytest.raises(RecipeError, match=r"'ties' is not solved on the live model.*choose from distill, ssr, iteris, zip"):
        Solver(live(made), made[1], PROMPTS).solve(Recipe(method="ties", weights=(1, 1)))


def test_checkpointing_changes_no_gradient(made: tuple[Renderer, list[Adapter]]) -> None:
    model = live(made)
    points = recorded(model)
    start = model.modules.selected([True, False])
    moments = {path: torch.eye(sum(ranks)).double() for path, ranks in model.modules.ranks.items()}
    *_, plain = train(model, points, start, moments, Training(steps=2, batch=3))
    model.denoiser.save_memory()
    *_, checkpointed = train(model, points, start, moments, Training(steps=2, batch=3))
    assert checkpointed.loss == pytest.approx(plain.loss, rel=1e-4)
    assert all(torch.allclose(checkpointed.routing()[path], matrix, atol=1e-3) for path, matrix in plain.routing().items())


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


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.solved])
def test_solving_again_gives_the_same_router(method: str) -> None:
    renderer = Renderer(tiny_pipeline(), RenderSettings(steps=2, guidance=2.0, resolution=32))
    adapters = [random_adapter("hero", renderer, "sd1", 2, 1), random_adapter("ink", renderer, "sd1", 3, 2)]
    found = [Solver(LiveModel.of(renderer, adapters, SUBJECTS), adapters, PROMPTS).solve(solvable(method, seed=3)) for _ in range(2)]
    assert found[0].routers[100].hash == found[1].routers[100].hash


@pytest.fixture(scope="module")
def small() -> tuple[Renderer, list[Adapter]]:
    """A tiny pipeline of SD 1 and two sources."""
    renderer = Renderer(tiny_pipeline(), RenderSettings(steps=2, guidance=2.0, resolution=32))
    return renderer, [random_adapter("hero", renderer, "sd1", 2, 1), random_adapter("ink", renderer, "sd1", 3, 2)]


def test_a_checkpoint_is_what_a_recipe_of_it_solves(small: tuple[Renderer, list[Adapter]]) -> None:
    solver = Solver(live(small), small[1], PROMPTS)
    recipe = solvable("distill", train_steps=5)
    every = solver.solve(recipe, checkpoints=(40, 80))
    assert (list(every.routers), list(every.losses)) == ([40, 80, 100], [40, 80, 100])
    assert len({router.hash for router in every.routers.values()}) == 3
    alone = solver.solve(recipe.replaced(checkpoint=40))
    assert list(alone.routers) == [40]
    assert alone.routers[40].hash == every.routers[40].hash


def test_a_training_that_is_ended_early_keeps_what_its_recipe_can_repeat(small: tuple[Renderer, list[Adapter]]) -> None:
    solver = Solver(live(small), small[1], PROMPTS)
    recipe = solvable("distill", train_steps=8)

    def three_steps(what: str, done: int, total: int, loss: float) -> None:
        if (what, done) == ("training", 3):
            raise Enough

    found = solver.solve(recipe, progress=three_steps)
    assert found.last == 37
    assert found.routers[37].hash == solver.solve(recipe.replaced(checkpoint=37)).routers[37].hash

    def at_once(what: str, done: int, total: int, loss: float) -> None:
        raise Enough

    with pytest.raises(Enough):
        Solver(live(small), small[1], PROMPTS).solve(recipe, progress=at_once)


def test_a_correction_starts_at_nothing_and_is_trained(small: tuple[Renderer, list[Adapter]]) -> None:
    plain, adapters = live(small), small[1]
    model = plain.corrected(correction_of(adapters, 4))
    assert {path for path, ranks in model.modules.ranks.items() if ranks[2]} == set(correction_of(adapters, 4).modules)
    renderer, start = small[0], model.modules.selected([True, True])
    assert all(not matrix[-ranks[2] :].any() for path, ranks in model.modules.ranks.items() if ranks[2] for matrix in [start[path]])
    drawn = [renderer.render(PROMPTS.prompts, RoutedCandidate(one.modules, one.modules.selected([True, True]))) for one in (plain, model)]
    assert (drawn[0].int() - drawn[1].int()).abs().max() <= 1
    router = Solver(plain, adapters, PROMPTS).solve(solvable("distill", correction=4)).routers[100]
    assert router.sources[2] == digest(correction_of(adapters, 4))
    for path, ranks in router.ranks.items():
        assert bool(matrix(router, path)[sum(ranks[:2]) :].any()) == bool(ranks[2])


def test_closed_forms_know_no_correction_and_need_no_trajectories_of_their_own(small: tuple[Renderer, list[Adapter]]) -> None:
    solver, told = fresh(small), list[str]()
    solver.solve(solvable("distill", correction=4))
    found = solver.solve(solvable("ssr"), progress=lambda what, *_: told.append(what))
    assert "drawing" not in told
    assert found.routers[100].hash == fresh(small).solve(solvable("ssr")).routers[100].hash


def fresh(small: tuple[Renderer, list[Adapter]]) -> Solver:
    return Solver(live(small), small[1], PROMPTS)


def test_a_rank_bounds_a_corrected_merge(small: tuple[Renderer, list[Adapter]]) -> None:
    recipe = solvable("distill", correction=4, rank=3)
    router = fresh(small).solve(recipe).routers[100]
    merged = merge(small[1], recipe.replaced(calibration=router.hash), routers=[router])
    whole = merge(small[1], recipe.replaced(calibration=router.hash, rank=None), routers=[router])
    assert {factors.rank for factors in merged.modules.values()} <= {1, 2, 3}
    for path, factors in whole.modules.items():  # the router has that rank already
        assert relative_error(merged.modules[path].delta(), factors.delta()) < 1e-3, path


def test_the_preview_shows_a_corrected_merge(small: tuple[Renderer, list[Adapter]]) -> None:
    seen: list[tuple[int, torch.Tensor]] = []
    solver = fresh(small)
    recipe = solvable("distill", correction=4)
    router = solver.solve(recipe, watch=lambda step, shown: seen.append((step, small[0].render(PROMPTS.prompts, shown)))).routers[100]
    merged = merge(small[1], recipe.replaced(calibration=router.hash), routers=[router])
    ((step, pictures),) = seen
    assert step == 2
    assert distance(pictures, small[0].render(PROMPTS.prompts, merged)) < 0.5


def test_trajectories_are_drawn_once_for_all_recipes(small: tuple[Renderer, list[Adapter]]) -> None:
    solver, told = Solver(live(small), small[1], PROMPTS), []
    for method in ("ssr", "iteris", "distill"):
        solver.solve(solvable(method), progress=lambda what, *_: told.append(what))
    assert told.count("drawing") == told.index("measuring")


def test_a_rank_keeps_the_outputs_on_the_prompts_better_than_the_largest_of_the_change(small: tuple[Renderer, list[Adapter]]) -> None:
    model, adapters = live(small), small[1]
    solver, recipe = Solver(model, adapters, PROMPTS), solvable("ssr", rank=2)
    full, cut = (solver.solve(recipe.replaced(rank=rank)).routers[100] for rank in (None, 2))
    plain = merge(adapters, recipe.replaced(calibration=full.hash, truncation="delta"), routers=[full])
    merged = merge(adapters, recipe.replaced(calibration=cut.hash), routers=[cut])
    assert max(factors.rank for factors in merged.modules.values()) == 2
    moments = pooled(solver)
    lost = {"outputs": 0.0, "delta": 0.0}
    for path in merged.modules:
        up, down = (part.double() for part in model.modules.factors(path))
        whole = up @ matrix(full, path).double() @ down
        inside = torch.linalg.pinv(down)
        for name, found in (("outputs", merged), ("delta", plain)):
            change = (found.modules[path].delta().flatten(1).double() - whole) @ inside  # of z = down · x
            lost[name] += float(torch.trace(change @ moments[path] @ change.T))
    assert lost["outputs"] < 0.95 * lost["delta"]


def test_branches_of_modules_that_are_offloaded_keep_their_values() -> None:
    draw = torch.Generator().manual_seed(0)
    factors = Factors(torch.randn(4, 2, generator=draw), torch.randn(2, 3, generator=draw), 2.0, (4, 3))
    modules = RoutedModules({"unet.x": torch.nn.Linear(3, 4, device="meta")}, [Adapter("a", {"unet.x": factors}, "sd1")], torch.float32)
    up, down = modules.factors("unet.x")
    assert torch.equal(up @ down, factors.delta())


@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")
def test_a_base_in_half_precision_is_solved_as_one_in_full() -> None:
    """Pipelines of SDXL decode in fp32 then, which leaves an autoencoder that autograd cannot touch; gradients are small numbers."""
    losses, gradients = {}, {}
    for dtype in (torch.float32, torch.float16):
        renderer = Renderer(tiny_xl_pipeline().to(dtype=dtype), RenderSettings(steps=2, guidance=2.0, resolution=64, batch=3))
        adapters = [random_adapter(name, renderer, "sdxl", 2, seed, size=0.02) for seed, name in enumerate(("hero", "ink"))]
        model = LiveModel.of(renderer, adapters, SUBJECTS)
        points = recorded(model)
        start = model.modules.selected([True, False])
        moments = {path: torch.eye(sum(ranks)).double() for path, ranks in model.modules.ranks.items()}
        (step,) = train(model, points, start, moments, Training(steps=1, batch=4))
        trained = step.student.trained
        losses[dtype] = step.loss
        gradients[dtype] = torch.cat([tensor.grad.flatten() for tensor in trained.values() if tensor.grad is not None])
    assert losses[torch.float16] == pytest.approx(losses[torch.float32], rel=0.01)
    assert float(torch.cosine_similarity(gradients[torch.float16], gradients[torch.float32], dim=0)) > 0.999
    assert float((gradients[torch.float16] == 0).float().mean()) < 0.01


def matrix(router: Router, path: str) -> torch.Tensor:
    found = router.matrices[path]
    return torch.diag(found) if found.ndim == 1 else found


def pooled(solver: Solver) -> Any:
    return solver._measured[0].moments


def solvable(method: str, **fields: Any) -> Recipe:
    """A recipe that is solved in two steps where it is trained."""
    steps = {"train_steps": 2} if METHODS[method].reads("train_steps") else {}
    return Recipe(method=method, weights=(1, 1), **{**steps, **fields})


def test_gradients_that_are_not_finite_end_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer(tiny_pipeline(), RenderSettings(steps=2, guidance=2.0, resolution=32, batch=3))
    adapters = [random_adapter("hero", renderer, "sd1", 2, 1), random_adapter("ink", renderer, "sd1", 3, 2)]
    backward = torch.autograd.backward
    monkeypatch.setattr(torch.autograd, "backward", lambda loss: backward(loss * float("nan")))
    with pytest.raises(
        TrialError, match=r"^\S+: gradients of (\d+) of \1 modules are not finite — lower the learning rate, or compute in bf16"
    ):
        Solver(LiveModel.of(renderer, adapters, SUBJECTS), adapters, PROMPTS).solve(solvable("zip"))
