"""A delta in live weights: exact while it is in, gone without a trace when it is out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from optimizer.adapters import Adapter, Factors, load_adapter
from optimizer.errors import BaseModelError
from optimizer.rendering import Prompt, Renderer, RenderSettings, applied, base_weights
from tests.files import kohya_file, random_parts
from tests.tiny import tiny_pipeline, tiny_shapes

PROMPTS = (Prompt("a red fox", 1, 0), Prompt("a blue hat", 2, 1), Prompt("snow", 3))


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """Every linear and convolution module of U-Net and text encoder."""
    return load_adapter(kohya_file(tmp_path_factory.mktemp("adapter") / "all.safetensors", random_parts(tiny_shapes())).path)


def fingerprint(pipeline: StableDiffusionPipeline) -> str:
    digest = hashlib.sha256()
    for part in ("unet", "text_encoder", "vae"):
        for name, tensor in sorted(getattr(pipeline, part).state_dict().items()):
            digest.update(f"{part}.{name}".encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def test_base_weights_are_the_pipelines_own(pipeline: StableDiffusionPipeline) -> None:
    weights = base_weights(pipeline)
    assert {path: tuple(weight.shape) for path, weight in weights.items()} == tiny_shapes()
    assert weights["unet.conv_in"] is pipeline.unet.conv_in.weight


def test_weights_inside_are_base_plus_delta(pipeline: StableDiffusionPipeline, adapter: Adapter) -> None:
    weights = base_weights(pipeline)
    before = {path: weight.detach().clone() for path, weight in weights.items()}
    with applied(adapter, weights):
        for path, factors in adapter.modules.items():
            torch.testing.assert_close(weights[path].detach(), before[path] + factors.delta(), msg=path)
        changed = {path for path, weight in weights.items() if not torch.equal(weight, before[path])}
    assert changed == set(adapter.modules)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_sum_is_rounded_once(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 5, generator=generator).to(dtype))
    factors = Factors(torch.randn(6, 2, generator=generator), torch.randn(2, 5, generator=generator), 0.02, (6, 5))
    wanted = (weight.detach().float() + 0.01 * factors.up @ factors.down).to(dtype)
    with applied(Adapter("a", {"unet.conv_in": factors}), {"unet.conv_in": weight}):
        assert torch.equal(weight, wanted)


def test_nothing_is_left_after_rendering(pipeline: StableDiffusionPipeline, adapter: Adapter) -> None:
    before, renderer = fingerprint(pipeline), Renderer(pipeline, RenderSettings(steps=1, batch=2))
    renderer.render(PROMPTS, adapter)
    assert fingerprint(pipeline) == before
    assert not any(weight.is_inference() for weight in renderer.weights.values())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_interruption(pipeline: StableDiffusionPipeline, adapter: Adapter, error: type[BaseException]) -> None:
    before, renderer = fingerprint(pipeline), Renderer(pipeline, RenderSettings(steps=1, batch=2))
    inside = []

    def interrupt(done: int) -> None:
        inside.append(fingerprint(pipeline))
        raise error("now")

    with pytest.raises(error, match="now"):
        renderer.render(PROMPTS, adapter, tick=interrupt)
    assert len(inside) == 1
    assert inside[0] != before
    assert fingerprint(pipeline) == before


def test_nothing_is_left_when_a_sum_fails(pipeline: StableDiffusionPipeline, adapter: Adapter) -> None:
    last = list(adapter.modules)[-1]
    torn = replace(adapter.modules[last], down=adapter.modules[last].down[:, :-1])
    before = fingerprint(pipeline)
    with pytest.raises(RuntimeError), applied(replace(adapter, modules={**adapter.modules, last: torn}), base_weights(pipeline)):
        pytest.fail("must not begin")
    assert fingerprint(pipeline) == before


def test_gradients_flow_inside(pipeline: StableDiffusionPipeline, adapter: Adapter) -> None:
    weights = base_weights(pipeline)
    Renderer(pipeline, RenderSettings(steps=1)).render(PROMPTS[:1], adapter)
    with applied(adapter, weights):
        pipeline.unet(torch.ones(1, 4, 8, 8), 1, torch.ones(1, 16, 16)).sample.square().mean().backward()
    gradient = weights["unet.conv_in"].grad
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0
    pipeline.unet.zero_grad(set_to_none=True)


def test_an_adapter_for_another_base_changes_nothing(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    good, wide = "unet.conv_in", "unet.time_embedding.linear_1"
    parts = random_parts({good: (16, 4, 3, 3), wide: (64, 320), "unet.down_blocks.7.resnets.0.conv1": (16, 16, 3, 3)})
    adapter = load_adapter(kohya_file(tmp_path / "other.safetensors", parts).path)
    before = fingerprint(pipeline)
    with pytest.raises(BaseModelError) as caught:
        Renderer(pipeline, RenderSettings(steps=1)).render(PROMPTS, adapter)
    assert str(caught.value) == (
        "other: does not fit the base model: unet.down_blocks.7.resnets.0.conv1: not in the base model; "
        "unet.time_embedding.linear_1: the adapter changes a weight of shape (64, 320), the base model's is (64, 16)"
        " — use the base model that it was trained on"
    )
    assert fingerprint(pipeline) == before
