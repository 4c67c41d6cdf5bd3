"""Out of memory: the pictures come in smaller batches, then with model offload, and the base's weights stay what they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from optimizer.adapters import Adapter, load_adapter
from optimizer.errors import TrialError
from optimizer.rendering import Prompt, Renderer, RenderSettings
from optimizer.rendering.memory.oom import MemoryFallback, attempt, is_out_of_memory
from tests.files import kohya_file, random_parts
from tests.tiny import tiny_pipeline, tiny_shapes

PROMPTS = tuple(Prompt(text, seed) for seed, text in enumerate(("a red fox", "a blue hat", "snow", "a red fox", "a hat", "sand", "a fox")))
SETTINGS = RenderSettings(steps=2, guidance=4.0, batch=4)
LEVEL = 1  # of 255: what another batch size may change
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """Every linear and convolution module of U-Net and text encoder."""
    return load_adapter(kohya_file(tmp_path_factory.mktemp("adapter") / "all.safetensors", random_parts(tiny_shapes())).path)


def state(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    parts = ("unet", "text_encoder", "vae")
    return {f"{part}.{name}": t.cpu().clone() for part in parts for name, t in getattr(pipeline, part).state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def farthest(first: Tensor, second: Tensor) -> float:
    return float((first.float() - second.float()).abs().max())


@contextmanager
def scarce(model: nn.Module, fits: Callable[[int], bool], error: type[Exception] = torch.OutOfMemoryError) -> Iterator[list[int]]:
    """Within it the model runs out of memory, after its forward pass, with batches that do not fit; gives the batches that were tried."""
    tried: list[int] = []

    def fail(module: nn.Module, inputs: Any, output: Any) -> None:
        tried.append(len(output[0]))
        if not fits(tried[-1]):
            raise error("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = model.register_forward_hook(fail)
    yield tried
    handle.remove()


def pictures(fitting: int) -> Callable[[int], bool]:
    """Guidance makes two of each picture."""
    return lambda batch: batch <= 2 * fitting


# diffusers makes the ancestral scheduler's sigmas in a way that numpy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("stochastic", [False, True], ids=["DDIM", "Euler ancestral"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_the_pictures_are_those_of_the_smaller_batch(adapter: Adapter, error: type[Exception], stochastic: bool) -> None:
    pipeline, told, ticks = tiny_pipeline(), list[str](), list[int]()
    if stochastic:
        pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    before = state(pipeline)
    wanted = Renderer(pipeline, replace(SETTINGS, batch=1)).render(PROMPTS, adapter)
    large = Renderer(pipeline, SETTINGS).render(PROMPTS, adapter)
    renderer = Renderer(pipeline, SETTINGS, note=told.append)
    with scarce(pipeline.unet, pictures(1), error):
        found = renderer.render(PROMPTS, adapter, tick=ticks.append)
    assert torch.equal(found, wanted)
    assert farthest(found, large) <= LEVEL
    assert told == ["out of memory with batches of 4: going on with 2", "out of memory with batches of 2: going on with 1"]
    assert ticks == [1, 2, 3, 4, 5, 6, 7]
    assert same(state(pipeline), before)


def test_the_batch_that_worked_is_remembered() -> None:
    pipeline, told = tiny_pipeline(), list[str]()
    renderer = Renderer(pipeline, SETTINGS, note=told.append)
    with scarce(pipeline.unet, pictures(2)) as tried:
        renderer.render(PROMPTS)
        del tried[:]
        renderer.render(PROMPTS)
    assert max(tried) == 4
    assert len(told) == 1


def test_a_last_batch_that_is_not_full_is_halved_from_its_own_size() -> None:
    pipeline, told = tiny_pipeline(), list[str]()
    with scarce(pipeline.unet, pictures(1)):
        Renderer(pipeline, replace(SETTINGS, batch=16), note=told.append).render(PROMPTS[:3])
    assert told == ["out of memory with batches of 3: going on with 1"]


def test_pictures_that_are_finished_are_kept() -> None:
    pipeline, ticks = tiny_pipeline(), list[int]()
    wanted, calls = Renderer(pipeline, SETTINGS).render(PROMPTS), iter(range(100))
    with scarce(pipeline.unet, lambda batch: next(calls) != SETTINGS.steps):
        found = Renderer(pipeline, SETTINGS).render(PROMPTS, tick=ticks.append)
    assert ticks == [4, 5, 6, 7]
    assert farthest(found, wanted) <= LEVEL


def test_the_end_is_a_failed_trial_and_the_next_one_works(adapter: Adapter) -> None:
    pipeline = tiny_pipeline()
    before, renderer = state(pipeline), Renderer(pipeline, SETTINGS)
    message = "^out of memory even with one picture at a time — end other programs that need memory, lower the resolution"
    with scarce(pipeline.unet, pictures(0)), pytest.raises(TrialError, match=message) as caught:
        renderer.render(PROMPTS, adapter)
    assert caught.value.__context__ is None, "a traceback would hold the memory"
    assert same(state(pipeline), before)
    assert torch.equal(renderer.render(PROMPTS), Renderer(pipeline, replace(SETTINGS, batch=1)).render(PROMPTS))


def test_a_text_encoder_that_does_not_fit_fails_the_trial(adapter: Adapter) -> None:
    pipeline = tiny_pipeline()
    before, renderer = state(pipeline), Renderer(pipeline, SETTINGS)
    with scarce(pipeline.text_encoder, pictures(0)), pytest.raises(TrialError, match=r"^out of memory before the first picture of a batch"):
        renderer.render(PROMPTS, adapter)
    assert same(state(pipeline), before)


def test_sums_that_do_not_fit_fail_the_trial(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, done = tiny_pipeline(), iter(range(len(adapter.modules)))
    before, original = state(pipeline), Tensor.float

    def fail(tensor: Tensor) -> Tensor:
        if tensor.requires_grad is False and next(done) > len(adapter.modules) // 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(tensor)

    monkeypatch.setattr(Tensor, "float", fail)
    with pytest.raises(TrialError, match=r"^out of memory before the first picture of a batch"):
        Renderer(pipeline, SETTINGS).render(PROMPTS, adapter)
    monkeypatch.undo()
    assert same(state(pipeline), before)


def test_both_kinds_of_offload_come_before_the_end(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: diffusers' hooks, which move the models from the CPU to the CPU."""
    monkeypatch.setattr(MemoryFallback, "_can_offload", lambda self: True)
    pipeline, told = tiny_pipeline(), list[str]()
    before, renderer = state(pipeline), Renderer(pipeline, SETTINGS, note=told.append)
    wanted = Renderer(pipeline, replace(SETTINGS, batch=1)).render(PROMPTS, adapter)
    with scarce(pipeline.unet, lambda batch: hasattr(pipeline.unet, "_hf_hook")):
        found = renderer.render(PROMPTS, adapter)
    assert torch.equal(found, wanted)
    assert told[2:] == [
        "out of memory even with one picture at a time: going on with idle models in the computer's memory, which is slower"
    ]
    assert same(state(pipeline), before)
    assert renderer.weights["unet.conv_in"] is pipeline.unet.conv_in.weight
    with (
        scarce(pipeline.unet, pictures(0)),
        pytest.raises(TrialError, match="one picture at a time and all but the layer that computes in the computer's memory"),
    ):
        renderer.render(PROMPTS, adapter)
    assert told[3:] == [
        "out of memory even with one picture at a time and idle models in the computer's memory: "
        "going on with all but the layer that computes in the computer's memory, which is slower"
    ]
    assert same(state(pipeline), before)
    assert torch.equal(renderer.render(PROMPTS, adapter), wanted)
    assert not any(weight.is_inference() for weight in renderer.weights.values())


@CUDA
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_model_offload_on_a_gpu(adapter: Adapter, dtype: torch.dtype) -> None:
    pipeline = tiny_pipeline().to("cuda", dtype)
    before, told = state(pipeline), list[str]()
    wanted, base = (Renderer(pipeline, replace(SETTINGS, batch=1)).render(PROMPTS, some) for some in (adapter, None))
    renderer = Renderer(pipeline, SETTINGS, note=told.append)
    with scarce(pipeline.unet, lambda batch: hasattr(pipeline.unet, "_hf_hook")):
        assert farthest(renderer.render(PROMPTS, adapter), wanted) <= LEVEL
    assert pipeline.unet.device.type == "cpu"
    assert renderer.device.type == "cuda"
    with scarce(pipeline.text_encoder, pictures(0)), pytest.raises(TrialError):
        renderer.render(PROMPTS, adapter)
    with scarce(pipeline.unet, pictures(0)), pytest.raises(TrialError):
        renderer.render(PROMPTS, adapter)
    assert same(state(pipeline), before)
    assert farthest(renderer.render(PROMPTS), base) <= LEVEL
    assert len(told) == 3
    assert not any(weight.is_inference() for weight in renderer.weights.values())


def test_what_out_of_memory_looks_like() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("any"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(TrialError("out of memory"))


def test_memory_is_free_after_an_attempt() -> None:
    import weakref

    held: list[weakref.ref[Tensor]] = []

    def action() -> int:
        large = torch.zeros(8)
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert attempt(action) is None
    assert held[0]() is None


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        attempt(lambda: torch.ones(2, 3) @ torch.ones(2, 3))
