"""Models that were not made for each other are told apart before anything is drawn, and what is told is where the fault lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering import Loading, RenderSettings, draft_renderer, load_pipeline, load_renderer
from tests.ldm import save_single_file
from tests.rendering.pipelines.test_quantisation import tiny_decoder
from tests.tiny import tiny_flux_pipeline, tiny_flux_transformer, tiny_pipeline, tiny_sd3_pipeline, tiny_unet, tiny_vae, tiny_xl_pipeline


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("xl") / "xl"
    tiny_xl_pipeline().save_pretrained(place)
    return place


def refused(base: Path, denoiser: Path | str = "") -> str:
    with pytest.raises(BaseModelError) as caught:
        load_pipeline(base, device="cpu", dtype=torch.float32, denoiser=denoiser)
    return str(caught.value)


def test_a_model_for_inpainting(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.register_modules(unet=UNet2DConditionModel.from_config(pipeline.unet.config, in_channels=9))
    pipeline.save_pretrained(tmp_path)
    assert refused(tmp_path) == (
        f"{tmp_path}: its unet takes 9 channels, the latents have 4 — "
        "use a model that draws from text alone; those for inpainting or editing take a picture, too"
    )


def test_a_model_for_editing(tmp_path: Path) -> None:
    pipeline = tiny_flux_pipeline()
    pipeline.save_pretrained(tmp_path)
    type(pipeline.transformer).from_config(pipeline.transformer.config, in_channels=32).save_pretrained(tmp_path / "transformer")
    assert refused(tmp_path).startswith(f"{tmp_path}: its transformer takes 8 channels, the latents have 4 — ")


def test_a_denoiser_that_reads_other_text_states(xl: Path, tmp_path: Path) -> None:
    tiny_unet(cross=16).save_pretrained(tmp_path / "other")
    assert refused(xl, tmp_path / "other") == (
        f"{tmp_path / 'other'}: its unet reads text states 16 numbers wide, the text encoders give 32 — "
        "use a unet and text encoders of one model of SDXL"
    )


def test_a_transformer_that_reads_other_text_states(tmp_path: Path) -> None:
    tiny_flux_pipeline().save_pretrained(tmp_path / "base")
    tiny_flux_transformer(width=24).save_pretrained(tmp_path / "other")
    assert "its transformer reads text states 24 numbers wide, the text encoders give 16" in refused(tmp_path / "base", tmp_path / "other")


def test_another_model_in_place_of_a_denoiser(xl: Path, tmp_path: Path) -> None:
    assert refused(xl, xl / "vae") == f"{xl / 'vae'}: holds a AutoencoderKL, not a UNet2DConditionModel — give a unet of SDXL to --denoiser"
    tiny_sd3_pipeline().transformer.save_pretrained(tmp_path / "sd3")
    assert refused(xl, tmp_path / "sd3").startswith(f"{tmp_path / 'sd3'}: holds a SD3Transformer2DModel, not a UNet2DConditionModel — ")
    file = save_single_file(tiny_flux_pipeline(), tmp_path / "flux.safetensors")
    assert refused(xl, file) == f"{file}: this file is of another model (flux-dev) — give a unet of SDXL to --denoiser"


def test_what_a_denoisers_folder_lacks_is_said_of_it(xl: Path, tmp_path: Path) -> None:
    model, file = tiny_xl_pipeline().unet, tmp_path / "diffusion_pytorch_model.safetensors"
    model.save_pretrained(tmp_path)
    save_file({name: tensor for name, tensor in model.state_dict().items() if name != "conv_in.bias"}, file, {"format": "pt"})
    assert refused(xl, tmp_path) == f"{tmp_path}: weights are missing: conv_in.bias — fetch the whole folder again"
    (tmp_path / "config.json").write_text("{")
    assert refused(xl, tmp_path).startswith(f"{tmp_path / 'config.json'}: cannot be read: ")


def without_a_tensor(model: Any, place: Path) -> Path:
    model.save_pretrained(place)
    tensors = dict(sorted(model.state_dict().items())[2:])
    save_file(tensors, place / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return place


def test_autoencoders_that_are_not_whole_or_of_another_kind(xl: Path, tmp_path: Path) -> None:
    """A tiny one of a full one's weights would be made up, and draw noise all night."""
    torn, tiny, whole = without_a_tensor(tiny_vae(), tmp_path / "torn"), tmp_path / "tiny", tmp_path / "whole"
    tiny_decoder().save_pretrained(tiny)
    tiny_vae().save_pretrained(whole)
    renderer = load_renderer(str(xl), RenderSettings(), Loading(device="cpu"))
    for vae, problem in {torn: "weights are missing: decoder.", tiny: "holds a AutoencoderTiny, not a AutoencoderKL — "}.items():
        with pytest.raises(BaseModelError) as caught:
            load_pipeline(xl, device="cpu", dtype=torch.float32, vae=vae)
        assert str(caught.value).startswith(f"{vae}: {problem}")
    torn = without_a_tensor(tiny_decoder(), tmp_path / "torn-tiny")
    for decoder, problem in {torn: "weights are missing: decoder.", whole: "holds a AutoencoderKL, not a AutoencoderTiny — "}.items():
        with pytest.raises(BaseModelError) as caught:
            draft_renderer(renderer, str(decoder))
        assert str(caught.value).startswith(f"{decoder}: {problem}")


def test_a_layout_for_a_folder(xl: Path) -> None:
    with pytest.raises(UsageError, match="--base-config: is for single files; a folder says itself how it is laid out — leave it out"):
        load_renderer(str(xl), RenderSettings(), Loading(device="cpu", base_config=str(xl)))
