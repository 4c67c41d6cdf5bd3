"""Memory of solving: what is announced is what is held, and running out of it costs time instead of the merge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.adapters import Adapter
from optimizer.calibration.compositions import Composition
from optimizer.calibration.demand import SolvingDemand, describe_solving
from optimizer.calibration.gradient_fallback import GradientFallback
from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.live.routed_modules import Routing
from optimizer.calibration.solve import Solver
from optimizer.calibration.training import Step, Training, train
from optimizer.errors import TrialError
from optimizer.rendering import Renderer, RenderSettings
from optimizer.rendering.memory.oom import MemoryFallback
from optimizer.rendering.memory.placement import Placement
from optimizer.rendering.schedulers import SCHEDULERS
from tests.calibration.test_solving import KINDS, PROMPTS, SUBJECTS, random_adapter, recorded, solvable
from tests.tiny import tiny_pipeline, tiny_xl_pipeline

CPU = torch.device("cpu")


def made(
    build: Callable[[], DiffusionPipeline] = tiny_pipeline,
    base: str = "sd1",
    *,
    texts: bool = True,
    placement: Placement | None = None,
    **settings: Any,
) -> tuple[LiveModel, list[Adapter]]:
    """A tiny base with two sources, which change its text encoders if ``texts`` is set."""
    renderer = Renderer(
        build(), RenderSettings(**{"steps": 2, "guidance": 2.0, "resolution": 32, "batch": 3} | settings), placement=placement
    )
    adapters = [random_adapter("hero", renderer, base, 2, 1), random_adapter("ink", renderer, base, 3, 2)]
    if not texts:
        kept = [{path: f for path, f in a.modules.items() if not path.startswith("text_encoder")} for a in adapters]
        adapters = [replace(a, modules=modules) for a, modules in zip(adapters, kept, strict=True)]
    return LiveModel.of(renderer, adapters, SUBJECTS), adapters


@contextmanager
def scarce(model: LiveModel, fits: Callable[[int], bool]) -> Iterator[list[int]]:
    """Within it the denoiser runs out of memory with numbers of rows that do not fit; gives the numbers that were tried."""
    tried: list[int] = []

    def fail(module: Any, inputs: Any, output: Any) -> None:
        tried.append(len(output[0]))
        if torch.is_grad_enabled() and not fits(tried[-1]):
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = model.denoiser.model.register_forward_hook(fail)
    yield tried
    handle.remove()


def trained(model: LiveModel, fallback: GradientFallback | None = None, batch: int = 4) -> Step:
    """The state after two steps of training."""
    start = model.modules.selected([True, True])
    moments = {path: torch.eye(sum(ranks)).double() for path, ranks in model.modules.ranks.items()}
    *_, last = train(model, recorded(model), start, moments, Training(steps=2, batch=batch), fallback)
    return last


@pytest.mark.parametrize("kind", KINDS)
def test_trajectories_and_factors_take_what_was_announced(kind: str) -> None:
    base, build = KINDS[kind]
    model, _ = made(build, base, guidance=0.0 if "schnell" in kind else 2.0)
    before = SolvingDemand.of(model, solvable("distill"), PROMPTS)
    points = recorded(model)
    assert before == SolvingDemand.of(model, solvable("distill"), PROMPTS, points)
    assert (before.points, before.trajectories) == (len(points), points.sample.nbytes + points.target.nbytes)
    assert before.factors == sum(branch.up.nbytes + branch.down.nbytes for branch in model.modules._branches.values())


@pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")
def test_a_base_in_half_precision_needs_half_for_its_inputs() -> None:
    model, _ = made(lambda: tiny_xl_pipeline().to(dtype=torch.float16), "sdxl", resolution=64)
    points = recorded(model)
    assert SolvingDemand.of(model, solvable("ssr"), PROMPTS).trajectories == points.sample.nbytes + points.target.nbytes
    assert points.sample.nbytes * 2 == points.target.nbytes


# diffusers makes the sigmas of some schedulers in a way that numpy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_number_of_points_is_known_before_they_are_drawn(scheduler: str) -> None:
    model, _ = made(scheduler=scheduler, steps=4)
    assert SolvingDemand.of(model, solvable("ssr"), PROMPTS).points == len(recorded(model))


@pytest.mark.parametrize("method", ["distill", "zip"])
def test_the_state_of_training_takes_what_was_announced(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    optimisers: list[torch.optim.Optimizer] = []
    build = torch.optim.Adam

    def kept(*arguments: Any, **named: Any) -> torch.optim.Optimizer:
        optimisers.append(build(*arguments, **named))
        return optimisers[0]

    monkeypatch.setattr(torch.optim, "Adam", kept)
    model, adapters = made()
    solver, students = Solver(model, adapters, PROMPTS), list[Any]()

    def routing(step: Step) -> Routing:
        students.append(step.student)
        return step.student.detached()

    monkeypatch.setattr(Step, "routing", routing)
    solver.solve(solvable(method))
    student, (optimiser,) = students[-1], optimisers
    states = [value for state in optimiser.state.values() for name, value in state.items() if name != "step"]
    whitened = [matrix for one in student._whitened.values() for matrix in (one.left, one.right)]
    held = sum(tensor.nbytes for tensor in (*student.trained.values(), *(t.grad for t in student.trained.values()), *states, *whitened))
    demand = SolvingDemand.of(model, solvable(method), PROMPTS)
    assert demand.routers == held
    moments = [one[path] for one in (*(group.moments for group in solver._measured[0].groups), solver._measured[0].moments) for path in one]
    assert demand.moments == sum({tensor.data_ptr(): tensor.nbytes for tensor in moments}.values())


def test_the_line_before_a_merge_is_solved() -> None:
    demand, fallback = SolvingDemand(12_000_000, 34_000_000, 5_000_000, 4320, 1_700_000_000), GradientFallback(lambda line: None)
    cuda, recipe = torch.device("cuda"), solvable("distill")
    assert describe_solving(demand, recipe, cuda, fallback) == (
        "solving distill holds beside drawing: 12 MB of factors on cuda; 34 MB of routers with the state of their training, 5 MB of second "
        "moments and 1.7 GB of trajectories (4320 points) in the computer's memory; gradients of 16 points at once, of fewer where memory "
        "does not suffice"
    )
    assert describe_solving(demand, solvable("ssr"), CPU, fallback) == (
        "solving ssr holds beside drawing: 12 MB of factors, 34 MB of routers, 5 MB of second moments and 1.7 GB of trajectories "
        "(4320 points) in the computer's memory"
    )
    for part, checkpointed, words in (
        (16, False, "gradients of 16 points at once, as fitted before"),
        (4, False, "gradients of 16 points, 4 at once, as fitted before"),
        (1, True, "gradients of 16 points, 1 at once, with gradient checkpointing, as fitted before"),
    ):
        found = GradientFallback(lambda line: None, part, checkpointed, fitted=True)
        assert describe_solving(demand, recipe, cuda, found).endswith(f"; {words}")


def test_a_merge_is_announced_and_a_later_training_begins_with_what_fitted() -> None:
    model, adapters = made()
    told: list[str] = []
    fallback = GradientFallback(told.append)
    with scarce(model, lambda rows: rows <= 8) as tried:
        solver = Solver(model, adapters, PROMPTS, fallback=fallback)
        solver.solve(solvable("distill"))
        first = len(tried)
        solver.solve(solvable("zip"))
    assert told[0].startswith("solving distill holds beside drawing: 1 MB of factors, ")
    assert told[1:3] == [
        "out of memory with gradients of 16 points at once: going on with 8",
        "out of memory with gradients of 8 points at once: going on with 4",
    ]
    assert told[3].startswith("solving zip holds beside drawing: ")
    assert told[3].endswith("; gradients of 16 points, 4 at once, as fitted before")
    assert len(told) == 4
    assert max(tried[first:]) == 8


@pytest.mark.parametrize("texts", [True, False])
def test_idle_models_leave_the_device_before_the_end(texts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: diffusers' hooks, which move the models from the CPU to the CPU."""
    plain = trained(made(texts=texts)[0])
    monkeypatch.setattr(MemoryFallback, "_can_offload", lambda self: True)
    model, _ = made(texts=texts)
    pipeline, told = model.renderer.pipeline, list[str]()
    wanted = model.renderer.render(PROMPTS.prompts)
    with scarce(model, lambda rows: hasattr(pipeline.vae, "_hf_hook")):
        found = trained(model, GradientFallback(told.append))
    assert found.loss == pytest.approx(plain.loss, rel=1e-3)
    assert told == [
        "out of memory with gradients of 4 points at once: going on with 2",
        "out of memory with gradients of 2 points at once: going on with 1",
        "out of memory with gradients of one point at a time: going on with gradient checkpointing, which is slower",
        "out of memory with one point at a time and gradient checkpointing: going on with idle models in the computer's memory, "
        "which makes drawing slower",
    ]
    hooked = {name for name in ("unet", "vae", "text_encoder") if hasattr(getattr(pipeline, name), "_hf_hook")}
    assert hooked == ({"unet", "vae"} if texts else {"unet", "vae", "text_encoder"})
    assert torch.equal(model.renderer.render(PROMPTS.prompts), wanted)
    assert not any(parameter.is_inference() for parameter in model.denoiser.model.parameters())
    message = "^out of memory with one point at a time and gradient checkpointing and idle models in the computer's memory — end other"
    with scarce(model, lambda rows: False), pytest.raises(TrialError, match=message):
        trained(model, GradientFallback(told.append, part=1, checkpointed=True))
    assert len(told) == 4


def test_a_composition_is_the_same_in_every_batch_with_offload() -> None:
    """At the end of each batch diffusers sets the hooks of its offload anew, and with them what the denoiser computes."""
    plain, (offloaded, _) = made()[0], made(placement=Placement(CPU, torch.float32, offload="model"))
    wanted, found = recorded(plain), recorded(offloaded)
    assert len(found) == len(wanted) == 8
    assert torch.equal(found.sample, wanted.sample)
    assert torch.equal(found.target, wanted.target)
    base = plain.renderer.render(PROMPTS.prompts)
    assert torch.equal(offloaded.renderer.render(PROMPTS.prompts), base)
    composition = Composition((1.0, 1.0))
    composed = plain.renderer.render(PROMPTS.prompts, plain.composed(composition))
    assert torch.equal(offloaded.renderer.render(PROMPTS.prompts, offloaded.composed(composition)), composed)
    assert not torch.equal(composed[3], base[3])
    assert torch.equal(offloaded.renderer.render(PROMPTS.prompts), base)


@pytest.mark.parametrize("texts", [True, False])
def test_text_encoders_that_are_trained_stay_where_their_gradients_are(texts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise diffusers moves their weights away as soon as the denoiser computes, before the backward pass."""
    monkeypatch.setattr(MemoryFallback, "_can_offload", lambda self: True)
    plain = trained(made(texts=texts)[0])
    model, _ = made(texts=texts, placement=Placement(CPU, torch.float32, offload="model"))
    pipeline = model.renderer.pipeline
    assert hasattr(pipeline.text_encoder, "_hf_hook")
    assert trained(model).loss == pytest.approx(plain.loss, rel=1e-3)
    assert hasattr(pipeline.text_encoder, "_hf_hook") is not texts
    assert hasattr(pipeline.unet, "_hf_hook")
    if texts:
        model.keep_texts()
    assert pipeline._exclude_from_cpu_offload.count("text_encoder") == texts
    assert type(pipeline)._exclude_from_cpu_offload == ["safety_checker"]


def test_the_error_without_a_gpu_says_what_was_tried() -> None:
    model, _ = made()
    message = "^out of memory with one point at a time and gradient checkpointing — end other programs"
    with scarce(model, lambda rows: False), pytest.raises(TrialError, match=message):
        trained(model)
    assert not model.renderer.offloaded
