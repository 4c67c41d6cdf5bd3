"""Quantised bases, other denoisers and tiny decoders: loaded, drawn with, never written to, and refused in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from diffusers import AutoencoderTiny, FluxTransformer2DModel
from diffusers.quantizers.gguf.utils import GGUFParameter
from safetensors.torch import save_file
from torch import Tensor

from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering import Loading, Prompt, Renderer, RenderSettings, draft_renderer, load_pipeline, load_renderer
from optimizer.rendering.loading import Quantize
from optimizer.rendering.pipeline_class import models_of
from optimizer.rendering.pipelines.quantisation import quantisation, quantised_parts
from tests.rendering.candidates.test_branches import change, farthest
from tests.tiny import tiny_flux_pipeline, tiny_flux_transformer, tiny_pipeline

PROMPTS = [Prompt("a red fox", 1), Prompt("an owl", 2)]
SETTINGS = RenderSettings(steps=2, guidance=3.0, resolution=32, batch=2)
WIDTH = 32  # GGUF's blocks


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("flux") / "flux"
    tiny_flux_pipeline(width=WIDTH).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> FluxTransformer2DModel:
    """Another transformer of the same shape."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return tiny_flux_transformer(WIDTH)


def as_gguf(transformer: FluxTransformer2DModel, path: Path) -> Path:
    """Its tensors with eight bits in blocks of 32 where they are matrices of linear layers, as GGUF files have them."""
    writer = gguf.GGUFWriter(str(path), "flux")
    for name, tensor in transformer.state_dict().items():
        values = tensor.float().numpy()
        kind = gguf.GGMLQuantizationType.Q8_0 if tensor.ndim == 2 and tensor.shape[1] % 32 == 0 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def drawn(folder: Path, **loading: Any) -> Tensor:
    return load_renderer(str(folder), SETTINGS, Loading(device="cpu", **loading)).render(PROMPTS)


def raw(renderer: Renderer) -> dict[str, bytes]:
    """Every parameter as it lies in memory, packed numbers included."""
    found = {}
    for part, model in models_of(renderer.pipeline).items():
        for name, parameter in model.named_parameters():
            if "lora_" not in name:
                inner = [getattr(parameter, key) for key in ("qdata", "scale") if hasattr(parameter, key)] or [parameter.data]
                plain = [(t.as_subclass(Tensor) if isinstance(t, GGUFParameter) else t).contiguous().view(torch.uint8) for t in inner]
                found[f"{part}.{name}".replace(".base_layer", "")] = b"".join(t.numpy().tobytes() for t in plain)
    return found


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_base_is_quantised_as_it_is_loaded(flux: Path, kind: Quantize) -> None:
    pytest.importorskip("torchao")
    renderer = load_renderer(str(flux), SETTINGS, Loading(device="cpu", quantize=kind))
    assert isinstance(renderer, Renderer)
    assert quantised_parts(renderer.pipeline) == ["text_encoder_2", "transformer"]
    assert renderer.precision == "cpu torch.float32 branch quantised"
    assert "(some of them quantised)" in renderer.plan
    assert renderer.plan.endswith("candidates in branches beside the weights")
    before = raw(renderer)
    exact: Any = load_renderer(str(flux), SETTINGS, Loading(device="cpu"))
    adapter = change(exact.pipeline, strength=0.05)
    plain, changed = renderer.render(PROMPTS), renderer.render(PROMPTS, adapter)
    few = 8 if kind == "int8" else 16
    assert farthest(plain, exact.render(PROMPTS)) <= few
    assert farthest(changed, exact.render(PROMPTS, adapter)) <= few
    assert farthest(plain, changed) > few
    assert raw(renderer) == before
    assert torch.equal(renderer.render(PROMPTS), plain)


def test_a_transformer_from_a_gguf_file(flux: Path, other: FluxTransformer2DModel, tmp_path: Path) -> None:
    file = as_gguf(other, tmp_path / "flux-Q8_0.gguf")
    renderer: Any = load_renderer(str(flux), SETTINGS, Loading(device="cpu", denoiser=str(file)))
    assert quantised_parts(renderer.pipeline) == ["transformer"]
    other.save_pretrained(tmp_path / "other")
    exact: Any = load_renderer(str(flux), SETTINGS, Loading(device="cpu", denoiser=str(tmp_path / "other")))
    before, adapter = raw(renderer), change(exact.pipeline)
    assert farthest(renderer.render(PROMPTS), exact.render(PROMPTS)) <= 8
    assert farthest(renderer.render(PROMPTS, adapter), exact.render(PROMPTS, adapter)) <= 8
    assert farthest(exact.render(PROMPTS), drawn(flux)) > 8
    assert raw(renderer) == before


def test_a_folder_whose_weights_are_quantised_already(flux: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    pipeline = load_pipeline(flux, device="cpu", dtype=torch.float32, quantize="int8")
    pipeline.save_pretrained(tmp_path / "small")
    assert "torchao" in (tmp_path / "small/transformer/config.json").read_text()
    renderer: Any = load_renderer(str(tmp_path / "small"), SETTINGS, Loading(device="cpu"))
    assert quantised_parts(renderer.pipeline) == ["text_encoder_2", "transformer"]
    assert farthest(renderer.render(PROMPTS), drawn(flux)) <= 8
    with pytest.raises(UsageError, match="--apply weights: the base is quantised"):
        load_renderer(str(tmp_path / "small"), SETTINGS, Loading(device="cpu", apply="weights"))


def test_another_denoiser_stands_in_for_a_missing_one(flux: Path, other: FluxTransformer2DModel, tmp_path: Path) -> None:
    """What ComfyUI keeps in ``diffusion_models``: the transformer alone, in a file; here beside a base that has none."""
    place = tmp_path / "rest"
    shutil.copytree(flux, place)
    shutil.rmtree(place / "transformer")
    other.save_pretrained(tmp_path / "other")
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    whole = drawn(place, denoiser=str(tmp_path / "other"))
    (place / "transformer").mkdir()
    shutil.copy(flux / "transformer/config.json", place / "transformer/config.json")
    assert torch.equal(drawn(place, denoiser=str(tmp_path / "other.safetensors")), whole)


def test_a_denoiser_that_cannot_be_used(flux: Path, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(b"pickle")
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (tmp_path / "torn.gguf").write_bytes(b"GGUF\x03\0\0\0")
    for name, message in {
        "nothing": "nothing: does not exist — give a folder, a .safetensors or a .gguf file to --denoiser",
        "x.ckpt": "x.ckpt: .ckpt is not read — use a .safetensors file; others can run code when they are opened",
        "empty": r"empty: no transformer here \(config.json is missing\) — give the folder of one to --denoiser",
        "torn.safetensors": "torn.safetensors: cannot be read, or was not downloaded to its end ",
        "torn.gguf": "torn.gguf: the denoiser cannot be loaded: ",
    }.items():
        with pytest.raises(BaseModelError, match=message):
            drawn(flux, denoiser=str(tmp_path / name))


def test_four_bits_need_what_computes_with_them(flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.rendering.pipelines.quantisation.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--quantize nf4: bitsandbytes needs a GPU here — use int8, which runs on a CPU too"):
        drawn(flux, quantize="nf4")
    with pytest.raises(UsageError, match="--quantize nf4: bitsandbytes is not installed — pip install bitsandbytes"):
        quantisation("nf4", torch.bfloat16, torch.device("cuda"))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("decoder") / "taesd"
    tiny_decoder().save_pretrained(place)
    return place


def tiny_decoder(channels: int = 4, levels: int = 2) -> AutoencoderTiny:
    return AutoencoderTiny(
        latent_channels=channels,
        encoder_block_out_channels=(4,) * levels,
        decoder_block_out_channels=(4,) * levels,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=(1,) * levels,
    )


def test_a_tiny_decoder_draws_drafts_and_the_base_the_rest(decoder: Path, tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "sd")
    renderer: Any = load_renderer(str(tmp_path / "sd"), SETTINGS, Loading(device="cpu"))
    draft: Any = draft_renderer(renderer, str(decoder))
    final, before = renderer.render(PROMPTS), renderer.pipeline.vae
    sketch = draft.render(PROMPTS)
    assert sketch.shape == final.shape
    assert not torch.equal(sketch, final)
    assert renderer.pipeline.vae is before
    assert torch.equal(renderer.render(PROMPTS), final)
    latents = renderer.pipeline("a red fox", **call(renderer), output_type="latent").images
    with torch.no_grad():
        picture = AutoencoderTiny.from_pretrained(decoder).decode(latents / 1.0).sample
    wanted = ((picture / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    assert farthest(sketch[:1], wanted) <= 1
    assert draft_renderer(renderer, "") is renderer


def call(renderer: Renderer) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(PROMPTS[0].noise_seed)
    noise = renderer._noise([generator])
    return {"latents": noise, "num_inference_steps": 2, "guidance_scale": 3.0, "height": 32, "width": 32, "negative_prompt": ""}


def test_a_decoder_that_cannot_be_used(decoder: Path, tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "sd")
    renderer = load_renderer(str(tmp_path / "sd"), SETTINGS, Loading(device="cpu"))
    tiny_decoder(channels=16, levels=3).save_pretrained(tmp_path / "wrong")
    shutil.copytree(decoder, tmp_path / "torn")
    next((tmp_path / "torn").glob("*.safetensors")).write_bytes(b"")
    for name, message in {
        "nothing": r"no tiny decoder here \(config.json is missing\) — give the folder of an AutoencoderTiny to --decoder",
        "wrong": "it decodes 16 channels at 1/4, the base's latents have 4 at 1/2 — give one of the base's family to --decoder",
        "torn": "the tiny decoder cannot be loaded: ",
    }.items():
        with pytest.raises(BaseModelError, match=message):
            draft_renderer(renderer, str(tmp_path / name))
    with pytest.raises(UsageError, match="--decoder: a fake base has no decoder — leave it out"):
        draft_renderer(load_renderer("fake:", RenderSettings()), str(decoder))


def test_slices_change_nothing_and_are_refused_where_there_are_none(flux: Path, tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "sd")
    plain = drawn(tmp_path / "sd")
    assert farthest(drawn(tmp_path / "sd", vae_slicing=True, attention_slicing=True), plain) <= 1
    tiled = load_renderer(str(tmp_path / "sd"), replace(SETTINGS, resolution=64), Loading(device="cpu", vae_tiling=True))
    assert tiled.precision == "cpu torch.float32 tiled"
    assert tiled.render(PROMPTS).shape == (2, 3, 64, 64)
    with pytest.raises(UsageError, match=r"--attention-slicing: FLUX\.1 computes attention in one piece"):
        drawn(flux, attention_slicing=True)


def test_the_number_format_follows_family_device_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optimizer.adapters.families import PIPELINE_CLASSES
    from optimizer.rendering.assemble import number_format

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    sd, flux = PIPELINE_CLASSES["StableDiffusionXLPipeline"], PIPELINE_CLASSES["FluxPipeline"]
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert number_format(Loading(), sd, cuda, 1, 1) == torch.float16
    assert number_format(Loading(), flux, cuda, 1, 1) == torch.bfloat16
    assert number_format(Loading(precision="fp32"), flux, cuda, 1, 1) == torch.float32
    assert number_format(Loading(), flux, cpu, 100, 10) == torch.float32
    assert number_format(Loading(), flux, cpu, 79, 10) == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert number_format(Loading(), flux, cuda, 1, 1) == torch.float16


def test_a_base_too_large_for_this_machine_is_loaded_in_two_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "sd")
    monkeypatch.setattr("optimizer.rendering.assemble.free_memory", lambda device: 1 << 16)
    renderer = load_renderer(str(tmp_path / "sd"), SETTINGS, Loading(device="cpu"))
    assert renderer.precision == "cpu torch.bfloat16"
    assert renderer.plan == "memory: 1 MB of weights in bf16, 0 MB free on cpu: all of them on cpu; candidates in the weights"
    assert renderer.render(PROMPTS).float().std() > 1


def test_numbers_are_counted_by_headers(tmp_path: Path) -> None:
    from optimizer.rendering.memory.free import stored_numbers

    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path / "sd")
    numbers = sum(t.numel() for model in models_of(pipeline).values() for t in model.state_dict().values() if t.is_floating_point())
    assert abs(stored_numbers(tmp_path / "sd") - numbers) < 100  # transformers leaves out the positions
    pipeline.save_pretrained(tmp_path / "sd", variant="fp16")
    assert abs(stored_numbers(tmp_path / "sd") - numbers) < 100
    assert stored_numbers(tmp_path / "nothing") == 0
    (tmp_path / "torn.safetensors").write_bytes(json.dumps({}).encode())
    assert stored_numbers(tmp_path / "torn.safetensors") == 0
