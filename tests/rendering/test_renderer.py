"""Pictures: the ones that diffusers itself would draw, whatever the batch, the order and the neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline
from torch import Tensor

from optimizer.adapters import Adapter, load_adapter
from optimizer.errors import TrialError, UsageError
from optimizer.rendering import Prompt, Renderer, RenderSettings
from tests.files import Made, kohya_file, random_parts
from tests.tiny import tiny_pipeline, tiny_shapes

PROMPTS = tuple(Prompt(text, seed) for seed, text in enumerate(("a red fox", "a blue hat", "snow", "a red fox")))
SETTINGS = RenderSettings(steps=2, guidance=4.0, batch=2)
LEVEL = 1  # of 255: what another batch size may change


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return tiny_pipeline()


def made(path: Path, part: str) -> Made:
    shapes = {name: shape for name, shape in tiny_shapes().items() if name.startswith(part)}
    return kohya_file(path / f"{part or 'all'}.safetensors", random_parts(shapes, alpha=8.0))


def expected(file: Path | None, prompts: Sequence[Prompt], settings: RenderSettings) -> Tensor:
    """One picture at a time, by diffusers alone."""
    pipeline = tiny_pipeline()
    if file:
        pipeline.load_lora_weights(file)
    pictures = [
        pipeline(
            prompt.text,
            negative_prompt=settings.negative,
            generator=torch.Generator().manual_seed(prompt.noise_seed),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            height=settings.resolution,
            width=settings.resolution,
            output_type="np",
        ).images
        for prompt in prompts
    ]
    return torch.cat([torch.from_numpy(picture) for picture in pictures]).permute(0, 3, 1, 2) * 255


def farthest(first: Tensor, second: Tensor) -> float:
    return float((first.float() - second.float()).abs().max())


@pytest.mark.parametrize("part", ["", "unet.", "text_encoder."])
def test_pictures_are_those_of_diffusers(pipeline: StableDiffusionPipeline, tmp_path: Path, part: str) -> None:
    file = made(tmp_path, part).path
    renderer, adapter = Renderer(pipeline, SETTINGS), load_adapter(file)
    images = renderer.render(PROMPTS, adapter)
    assert images.dtype == torch.uint8
    assert images.shape == (len(PROMPTS), 3, 16, 16)
    assert farthest(images, expected(file, PROMPTS, SETTINGS)) <= LEVEL
    assert farthest(images, renderer.render(PROMPTS)) > 5 * LEVEL, "the adapter has to show for this to be a test"


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, negative="a blue hat"),
        replace(SETTINGS, guidance=1.0),
        replace(SETTINGS, guidance=1.0, negative="a blue hat"),
        replace(SETTINGS, resolution=24),
    ],
    ids=["negative", "no guidance", "no guidance, negative", "resolution"],
)
def test_settings_mean_what_diffusers_means(pipeline: StableDiffusionPipeline, settings: RenderSettings) -> None:
    images = Renderer(pipeline, settings).render(PROMPTS)
    wanted = expected(None, PROMPTS, settings)
    assert images.shape == wanted.shape
    assert farthest(images, wanted) <= LEVEL


def test_the_negative_prompt_shows(pipeline: StableDiffusionPipeline) -> None:
    plain, guided, free = SETTINGS, replace(SETTINGS, negative="a blue hat"), replace(SETTINGS, guidance=1.0, negative="a blue hat")
    images, negative = (Renderer(pipeline, settings).render(PROMPTS) for settings in (plain, guided))
    assert not torch.equal(images, negative)
    assert torch.equal(Renderer(pipeline, free).render(PROMPTS), Renderer(pipeline, replace(free, negative="")).render(PROMPTS))


# diffusers makes the ancestral scheduler's sigmas in a way that numpy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("stochastic", [False, True], ids=["DDIM", "Euler ancestral"])
def test_batch_order_and_neighbours_do_not_matter(stochastic: bool) -> None:
    pipeline = tiny_pipeline()
    if stochastic:
        pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    together = Renderer(pipeline, replace(SETTINGS, batch=8)).render(PROMPTS)
    alone = torch.cat([Renderer(pipeline, replace(SETTINGS, batch=1)).render([prompt]) for prompt in PROMPTS])
    torch.manual_seed(99)
    reversed_ = Renderer(pipeline, replace(SETTINGS, batch=3)).render(PROMPTS[::-1]).flip(0)
    assert farthest(together, alone) <= LEVEL
    assert farthest(together, reversed_) <= LEVEL


def test_text_and_seed_each_change_the_noise() -> None:
    seeds = {Prompt(text, seed).noise_seed for text in ("a", "b") for seed in (1, 2)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert Prompt("a", 1, 0).noise_seed == Prompt("a", 1, None).noise_seed
    assert Prompt("a red fox", 1).noise_seed == 3416820037169523594, "published studies hold pictures of this noise"


def test_texts_are_encoded_once_for_an_untouched_text_encoder(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    encoded: list[int] = []
    pipeline.text_encoder.register_forward_hook(lambda module, inputs, output: encoded.append(len(output[0])))
    renderer, images = Renderer(pipeline, replace(SETTINGS, steps=1)), load_adapter(made(tmp_path, "unet.").path)
    base = renderer.render(PROMPTS)
    renderer.render(PROMPTS, images)
    assert sum(encoded) == 4, "three texts and the empty one"
    renderer.render(PROMPTS, load_adapter(made(tmp_path, "text_encoder.").path))
    assert sum(encoded) == 8
    assert torch.equal(renderer.render(PROMPTS), base)
    assert sum(encoded) == 8


def test_progress_is_told(pipeline: StableDiffusionPipeline) -> None:
    told: list[int] = []
    Renderer(pipeline, replace(SETTINGS, steps=1)).render(PROMPTS, tick=told.append)
    assert told == [2, 4]


def test_a_delta_too_strong_for_numbers_is_a_failed_trial(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    adapter = load_adapter(made(tmp_path, "unet.").path)
    modules = {path: replace(factors, alpha=1e36) for path, factors in adapter.modules.items()}
    renderer = Renderer(pipeline, SETTINGS)
    base = renderer.render(PROMPTS)
    with pytest.raises(TrialError) as caught:
        renderer.render(PROMPTS, Adapter("huge", modules))
    assert str(caught.value) == ("2 of 2 pictures hold NaN, the first is 'a red fox' with seed 0 — lower the weights, or render in fp32")
    assert torch.equal(renderer.render(PROMPTS), base)


def test_a_resolution_that_the_base_cannot_draw(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(UsageError, match=r"^the resolution 20 is not a multiple of 8 — use 16$"):
        Renderer(pipeline, replace(SETTINGS, resolution=20))


def test_fitted_takes_the_bases_shapes(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    adapter = load_adapter(made(tmp_path, "").path)
    fitted = Renderer(pipeline, SETTINGS).fit_adapter(adapter)
    assert {path: factors.shape for path, factors in fitted.modules.items()} == tiny_shapes()
