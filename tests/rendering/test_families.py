"""Every family of bases: drawn as diffusers itself draws it, changed in place and put back, with defaults and errors of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from optimizer.adapters import Adapter, Factors
from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering import Loading, Prompt, Renderer, RenderSettings, load_pipeline, load_renderer
from optimizer.rendering.schedulers import SCHEDULERS, scheduler_named
from tests.tiny import tiny_flux_pipeline, tiny_pipeline, tiny_sd3_pipeline, tiny_v2_pipeline, tiny_vae, tiny_xl_pipeline

PROMPTS = [Prompt("a red fox", 1), Prompt("a blue owl, at sea", 2), Prompt("a red fox", 3)]


def sd3_without_t5() -> DiffusionPipeline:
    pipeline = tiny_sd3_pipeline()
    pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    return pipeline


KINDS: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd1": tiny_pipeline,
    "sd2": tiny_v2_pipeline,
    "sdxl": tiny_xl_pipeline,
    "sd3": tiny_sd3_pipeline,
    "sd3 without T5": sd3_without_t5,
    "flux dev": tiny_flux_pipeline,
    "flux schnell": lambda: tiny_flux_pipeline(guidance=False),
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline."""
    kind: str = request.param
    place = tmp_path_factory.mktemp(kind.replace(" ", "-")) / kind
    KINDS[kind]().save_pretrained(place)
    return place


def loaded(folder: Path, **settings: Any) -> Renderer:
    pipeline = load_pipeline(folder, device="cpu", dtype=torch.float32)
    return Renderer(pipeline, RenderSettings(**{"steps": 2, "guidance": 3.0, "resolution": 32} | settings))


def by_diffusers(renderer: Renderer, prompt: Prompt, negative: str) -> Tensor:
    """The picture that the pipeline makes of text, from the same noise."""
    generator = torch.Generator().manual_seed(prompt.noise_seed)
    negated = {} if "Flux" in type(renderer.pipeline).__name__ else {"negative_prompt": negative or None}
    longest = {"max_sequence_length": 256} if "Flux" in type(renderer.pipeline).__name__ else {}
    images: Tensor = renderer.pipeline(
        prompt.text,
        **negated,
        **longest,
        latents=renderer._noise([generator]),
        generator=generator,
        num_inference_steps=2,
        guidance_scale=3.0,
        height=32,
        width=32,
        output_type="pt",
    ).images
    return (images.float() * 255).round().to(torch.uint8)


def strong(renderer: Renderer) -> Adapter:
    """A change of every module that an adapter may change."""
    draw = torch.Generator().manual_seed(0)
    modules = {
        path: Factors(torch.randn(w.shape[0], 2, generator=draw), torch.randn(2, w[0].numel(), generator=draw), 0.2, tuple(w.shape))
        for path, w in renderer.weights.items()
    }
    return Adapter("strong", modules)


@pytest.mark.parametrize("negative", ["", "a grey fog"])
def test_pictures_are_those_that_diffusers_makes_of_the_text(folder: Path, negative: str) -> None:
    if negative and "flux" in folder.name:
        pytest.skip("takes no negative prompt, which another test is for")
    renderer = loaded(folder, negative=negative, batch=2)
    expected = torch.cat([by_diffusers(renderer, prompt, negative) for prompt in PROMPTS])
    found = renderer.render(PROMPTS)
    assert found.shape == (3, 3, 32, 32)
    assert found.dtype == torch.uint8
    assert (found.int() - expected.int()).abs().max() <= 1
    assert found.float().std() > 1


def test_a_change_is_seen_and_taken_out_bit_for_bit(folder: Path) -> None:
    renderer = loaded(folder)
    before = {name: {k: v.clone() for k, v in m.state_dict().items()} for name, m in models(renderer.pipeline).items()}
    alone = renderer.render(PROMPTS)
    adapter = renderer.fit_adapter(strong(renderer))
    parts = {path.partition(".")[0] for path in adapter.modules}
    assert parts == set(before) - {"vae"}
    changed = renderer.render(PROMPTS, adapter)
    assert (changed.float() - alone.float()).abs().mean() > 1
    for name, model in models(renderer.pipeline).items():
        assert all(torch.equal(tensor, before[name][key]) for key, tensor in model.state_dict().items()), name
    assert torch.equal(renderer.render(PROMPTS), alone)


def models(pipeline: DiffusionPipeline) -> dict[str, torch.nn.Module]:
    return {name: model for name, model in pipeline.components.items() if isinstance(model, torch.nn.Module)}


def test_a_text_encoder_alone_changes_what_is_drawn(folder: Path) -> None:
    renderer = loaded(folder)
    whole = strong(renderer)
    modules = {path: factors for path, factors in whole.modules.items() if path.startswith("text_encoder")}
    assert not torch.equal(renderer.render(PROMPTS, Adapter("texts", modules)), renderer.render(PROMPTS))


DEFAULTS = {
    "sd1": (20, 7.0, (16, 16)),
    "sd2": (20, 7.0, (16, 16)),
    "sdxl": (25, 6.0, (16, 16)),
    "sd3": (28, 4.5, (16, 16)),
    "sd3 without T5": (28, 4.5, (16, 16)),
    "flux dev": (28, 3.5, (256, 256)),
    "flux schnell": (4, 0.0, (256, 256)),
}


def test_what_is_usual_for_the_base_where_nothing_is_asked_for(folder: Path) -> None:
    renderer = loaded(folder, steps=None, guidance=None, resolution=None)
    assert (renderer.settings.steps, renderer.settings.guidance, renderer.picture_size) == DEFAULTS[folder.name]


@pytest.mark.parametrize("kind", [tiny_pipeline, tiny_xl_pipeline])
def test_a_turbo_model_is_known_by_its_timesteps(kind: Callable[[], DiffusionPipeline]) -> None:
    pipeline = kind()
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    settings = Renderer(pipeline, RenderSettings()).settings
    assert (settings.steps, settings.guidance) == (4, 0.0)
    assert Renderer(pipeline, RenderSettings(steps=30, guidance=5.0)).settings.steps == 30


def test_what_does_not_suit_how_the_base_draws_is_told(tmp_path: Path) -> None:
    tiny_xl_pipeline().save_pretrained(tmp_path / "some-xl-turbo")

    def told(**settings: Any) -> list[str]:
        lines: list[str] = []
        load_renderer(str(tmp_path / "some-xl-turbo"), RenderSettings(**settings), Loading(device="cpu"), note=lines.append)
        return lines

    assert told(guidance=0.0) == [
        "warning: some-xl-turbo calls itself a model of few steps (Turbo), and nothing else in it says so: "
        "without --steps and --guidance it draws in 25 steps with guidance 6"
    ]
    assert told(steps=4, guidance=0.0) == []
    assert told(steps=4, guidance=1.0, negative="fog") == [
        "warning: the negative prompt changes nothing with a guidance of 1; more than 1 would use it"
    ]


@pytest.mark.parametrize("trained", [{"rescale_betas_zero_snr": True}, {"prediction_type": "v_prediction"}])
def test_a_model_that_was_trained_down_to_no_signal_is_no_turbo_model(trained: dict[str, Any]) -> None:
    pipeline = tiny_xl_pipeline()
    schedule = {"timestep_spacing": "trailing"} | trained
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **schedule)
    assert Renderer(pipeline, RenderSettings()).settings.steps == 25


def test_a_source_of_another_family_is_refused_by_name(folder: Path) -> None:
    renderer = loaded(folder)
    other = replace(strong(renderer), base="qwen-image")
    with pytest.raises(BaseModelError) as caught:
        renderer.fit_adapter(other)
    assert str(caught.value) == (
        f"strong: is for Qwen-Image, the base model is of {renderer._record.title} — choose sources and a base of one family"
    )


def test_a_resolution_that_the_base_cannot_draw(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"the resolution 20 is not a multiple of 8 — use (16|24)"):
        loaded(folder, resolution=20)


def test_flux_takes_no_negative_prompt() -> None:
    with pytest.raises(UsageError) as caught:
        Renderer(tiny_flux_pipeline(), RenderSettings(negative="fog"))
    assert str(caught.value) == "--negative: FLUX.1 takes no negative prompt — leave it out"


LACKING = {
    "sdxl": "unet, vae, text_encoder, tokenizer, scheduler, text_encoder_2, tokenizer_2",
    "sd3": "transformer, vae, text_encoder, tokenizer, scheduler, text_encoder_2, tokenizer_2, text_encoder_3, tokenizer_3",
    "flux dev": "transformer, vae, text_encoder, tokenizer, scheduler, text_encoder_2, tokenizer_2",
}


def test_what_a_half_downloaded_folder_lacks(folder: Path, tmp_path: Path) -> None:
    if folder.name not in LACKING:
        pytest.skip("the others say it as well")
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(folder / "model_index.json", copy)
    with pytest.raises(BaseModelError) as caught:
        load_pipeline(copy, device="cpu", dtype=torch.float32)
    assert str(caught.value) == f"{copy}: the pipeline is incomplete: {LACKING[folder.name]} missing — fetch the whole folder again"


def test_an_index_that_leaves_out_what_the_class_needs(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"vae": [None, None]}))
    with pytest.raises(BaseModelError, match="the pipeline is incomplete: vae missing"):
        load_pipeline(copy, device="cpu", dtype=torch.float32)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' LMS
def test_the_scheduler_that_is_asked_for_draws(folder: Path) -> None:
    if "sd3" in folder.name or "flux" in folder.name:
        with pytest.raises(UsageError, match="--scheduler: euler_a cannot take the place of FlowMatchEulerDiscreteScheduler, which"):
            loaded(folder, scheduler="euler_a")
        return
    drawn = {name: loaded(folder, scheduler=name, steps=4).render(PROMPTS) for name in ("", "ddim", *SCHEDULERS)}
    assert torch.equal(drawn[""], drawn["ddim"])
    assert sum(torch.equal(a, b) for a, b in combinations(drawn.values(), 2)) <= 2
    assert all(images.float().std() > 1 for images in drawn.values())
    alone = loaded(folder, scheduler="euler_a", steps=4, batch=1).render(PROMPTS)
    assert (alone.int() - drawn["euler_a"].int()).abs().max() <= 1, "what another batch size may change"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' LMS
def test_schedulers_keep_the_bases_noise_schedule() -> None:
    pipeline = tiny_xl_pipeline()
    for name in SCHEDULERS:
        found = scheduler_named(name, pipeline.scheduler, "SDXL")
        assert found.config.beta_schedule == "scaled_linear", name
        assert type(found).__name__ == SCHEDULERS[name][0]
    with pytest.raises(UsageError, match="--scheduler: there is no scheduler 'eular' — choose from ddim, pndm, lms, euler, euler_a"):
        scheduler_named("eular", pipeline.scheduler, "SDXL")


def test_the_layer_of_clip_that_is_asked_for(folder: Path) -> None:
    if "flux" in folder.name:
        with pytest.raises(UsageError, match=r"--clip-skip: FLUX\.1 has no choice of CLIP's layers — leave it out"):
            loaded(folder, clip_skip=1)
        return
    own = 1 if folder.name in ("sd1", "sd2") else 2
    plain = loaded(folder).render(PROMPTS)
    assert torch.equal(loaded(folder, clip_skip=own).render(PROMPTS), plain)
    assert not torch.equal(loaded(folder, clip_skip=own + 1).render(PROMPTS), plain)
    if own == 2:
        with pytest.raises(UsageError, match="reads CLIP's layer 2 from the end, or an earlier one — give 2 or more"):
            loaded(folder, clip_skip=1)
    with pytest.raises(UsageError, match="--clip-skip: there is no layer 99: CLIP has 2 here — give 2 or less; 2 is usual"):
        loaded(folder, clip_skip=99)


def test_what_does_not_go_together_is_refused_before_weights_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.rendering.assemble.load_pipeline", lambda *args, **options: pytest.fail("weights were read"))
    settings, loading = RenderSettings(), Loading(device="cpu")
    with pytest.raises(BaseModelError, match="hero: is for Qwen-Image, the base model is of "):
        load_renderer(str(folder), settings, loading, adapters=[Adapter("hero", {}, base="qwen-image")])
    if "flux" in folder.name:
        with pytest.raises(UsageError, match=r"--negative: FLUX\.1 takes no negative prompt"):
            load_renderer(str(folder), replace(settings, negative="fog"), loading)
        with pytest.raises(UsageError, match=r"--attention-slicing: FLUX\.1 computes attention in one piece"):
            load_renderer(str(folder), settings, replace(loading, attention_slicing=True))


def test_another_autoencoder(folder: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        other = tiny_vae(0.1)
    other.save_pretrained(tmp_path / "alone")
    pipeline = load_pipeline(folder, device="cpu", dtype=torch.float32, vae=tmp_path / "alone")
    assert torch.equal(pipeline.components["vae"].decoder.conv_in.weight, other.decoder.conv_in.weight)
    again = load_pipeline(folder, device="cpu", dtype=torch.float32, vae=folder)
    assert torch.equal(
        again.components["vae"].decoder.conv_in.weight,
        load_pipeline(folder, device="cpu", dtype=torch.float32).components["vae"].decoder.conv_in.weight,
    )


def test_an_autoencoder_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    def refused(place: Path) -> str:
        with pytest.raises(BaseModelError) as caught:
            load_pipeline(folder, device="cpu", dtype=torch.float32, vae=place)
        return str(caught.value)

    assert refused(tmp_path) == f"{tmp_path}: no autoencoder here (config.json is missing) — give the folder of one to --vae"
    AutoencoderKL(latent_channels=16, norm_num_groups=4, block_out_channels=(8,)).save_pretrained(tmp_path)
    assert refused(tmp_path) == (
        f"{tmp_path}: its latents are of another shape than the base's (16 channels at 1/1 instead of 4 channels at 1/2) — "
        "give one of the base's family to --vae"
    )
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"no")
    assert refused(tmp_path).startswith(f"{tmp_path}: the autoencoder cannot be loaded: ")
