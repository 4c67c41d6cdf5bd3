"""Single files: the same pictures as the folder that they were made from, known models without any folder, one line for what is none."""

from __future__ import annotations

import json
import re
import string
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import open_clip
import pytest
import torch
import transformers
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from optimizer.adapters.families import MODEL_TYPES
from optimizer.errors import BaseModelError
from optimizer.rendering import Loading, Prompt, RenderSettings, load_pipeline, load_renderer
from optimizer.rendering.pipelines.clip_tokenizer import clip_tokenizer
from optimizer.rendering.pipelines.single_file import checkpoint_class
from tests.ldm import ldm_unet, ldm_vae, save_single_file
from tests.tiny import tiny_flux_pipeline, tiny_pipeline, tiny_sd3_pipeline, tiny_text_encoder, tiny_vae, tiny_xl_pipeline

PROMPTS = [Prompt("a red fox", 1), Prompt("an owl", 2)]
SETTINGS = RenderSettings(steps=2, guidance=3.0, resolution=32)


def unlike(pipeline: Any, width: int = 16) -> Any:
    """The pipeline with text encoders of different widths, by which diffusers tells them apart in a file."""
    torch.manual_seed(1)
    second = transformers.CLIPTextConfig(**pipeline.text_encoder.config.to_dict() | {"hidden_size": 24, "intermediate_size": 48})
    pipeline.register_modules(
        text_encoder=tiny_text_encoder(pipeline.tokenizer, width), text_encoder_2=transformers.CLIPTextModelWithProjection(second).eval()
    )
    return pipeline


def sd3(t5: bool = True) -> Any:
    """Its first text encoder has no projection of its own in such files."""
    pipeline = unlike(tiny_sd3_pipeline())
    first = transformers.CLIPTextModelWithProjection(pipeline.text_encoder.config).eval()
    torch.nn.init.eye_(first.text_projection.weight)
    pipeline.register_modules(text_encoder=first, **({} if t5 else {"text_encoder_3": None, "tokenizer_3": None}))
    return pipeline


KINDS: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd1": tiny_pipeline,
    "sdxl": lambda: unlike(tiny_xl_pipeline(), width=8),
    "sd3": sd3,
    "sd3 without T5": lambda: sd3(t5=False),
}


def drawn(base: Path, **loading: Any) -> Tensor:
    return load_renderer(str(base), SETTINGS, Loading(device="cpu", **loading)).render(PROMPTS)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_the_folder(kind: str, tmp_path: Path) -> None:
    pipeline = KINDS[kind]()
    pipeline.save_pretrained(tmp_path / "folder")
    file = save_single_file(pipeline, tmp_path / "one.safetensors")
    found, wanted = drawn(file, base_config=str(tmp_path / "folder")), drawn(tmp_path / "folder")
    assert (found.int() - wanted.int()).abs().max() <= 1
    assert wanted.float().std() > 1


@pytest.mark.slow
def test_flux_of_one_double_and_one_single_block(tmp_path: Path) -> None:
    """The blocks have full width, which diffusers' conversion takes for granted."""
    pipeline: Any = tiny_flux_pipeline()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "joint_attention_dim": 16, "pooled_projection_dim": 16}
        transformer = diffusers.FluxTransformer2DModel(**shape, guidance_embeds=True).to(torch.bfloat16).eval()
    pipeline.register_modules(transformer=transformer)
    pipeline.save_pretrained(tmp_path / "folder")
    file = save_single_file(pipeline, tmp_path / "flux.safetensors")
    one = RenderSettings(resolution=16, steps=1)
    found, wanted = (
        load_renderer(str(base), one, Loading(device="cpu", precision="bf16", base_config=layout)).render(PROMPTS)
        for base, layout in ((file, str(tmp_path / "folder")), (tmp_path / "folder", ""))
    )
    assert torch.equal(found, wanted)
    assert wanted.float().std() > 1


def test_a_layout_needs_no_weights(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path / "folder")
    file, wanted = save_single_file(pipeline, tmp_path / "one.safetensors"), drawn(tmp_path / "folder")
    for weights in (tmp_path / "folder").rglob("*.safetensors"):
        weights.unlink()
    assert torch.equal(drawn(file, base_config=str(tmp_path / "folder")), wanted)


def hollow(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16", width: int = 2) -> Path:
    """A file of zeros that takes no room on the disk."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = width * torch.Size(shape).numel()
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + at)
    return path


def models_of_blueprint(kind: str) -> dict[str, Any]:
    """The models of a known file in full size, without numbers."""
    family, plan = MODEL_TYPES[kind], MODEL_TYPES[kind].blueprints[kind]
    with torch.device("meta"):
        texts = {f"text_{i}": _transformers(name, config) for i, (name, config) in enumerate(plan.texts)}
        denoiser = getattr(diffusers, family.pipeline.denoiser_class)(**plan.denoiser)
        return {"denoiser": denoiser, "vae": diffusers.AutoencoderKL(**plan.vae), **texts}


def _transformers(name: str, config: Mapping[str, Any]) -> Any:
    kind = transformers.T5Config if name == "T5EncoderModel" else transformers.CLIPTextConfig
    return getattr(transformers, name)(kind(**config))


def sizes(kind: str) -> dict[str, int]:
    return {part: sum(p.numel() for p in model.parameters()) for part, model in models_of_blueprint(kind).items()}


def test_known_models_have_as_many_parameters_as_were_published() -> None:
    clip, vae, big, t5 = 123_060_480, 83_653_863, 694_659_840, 4_762_310_656
    assert sizes("v1") == {"denoiser": 859_520_964, "vae": vae, "text_0": clip}
    assert sizes("v2") == {"denoiser": 865_910_724, "vae": vae, "text_0": 340_387_840}
    assert sizes("xl_base") == {"denoiser": 2_567_463_684, "vae": vae, "text_0": clip, "text_1": big}
    assert sizes("flux-dev")["denoiser"] == 11_901_408_320
    assert sizes("flux-schnell")["denoiser"] == 11_891_178_560
    assert {kind: round(sizes(kind)["denoiser"] / 1e9, 2) for kind in ("sd3", "sd35_medium", "sd35_large")} == {
        "sd3": 2.03,
        "sd35_medium": 2.24,
        "sd35_large": 8.06,
    }
    assert sizes("sd3")["text_2"] == sizes("flux-dev")["text_1"] == t5


@pytest.mark.slow
def test_a_known_model_needs_no_folder(tmp_path: Path) -> None:
    """Stable Diffusion 1.5 in full size, of zeros."""
    from tests.ldm import ldm_unet

    models = models_of_blueprint("v1")
    shapes = {f"model.diffusion_model.{name}": tuple(t.shape) for name, t in ldm_unet(models["denoiser"].state_dict()).items()}
    shapes |= {
        f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}": tuple(t.shape)
        for name, t in models["text_0"].state_dict().items()
    }
    shapes |= {f"first_stage_model.{name}": tuple(t.shape) for name, t in ldm_vae(models["vae"].state_dict(), levels=4).items()}
    file = hollow(tmp_path / "v1-5.safetensors", shapes)
    assert checkpoint_class(file).title == "SD 1.x and 2.x"
    pipeline: Any = load_pipeline(file, device="cpu", dtype=torch.bfloat16)
    assert sum(p.numel() for p in pipeline.unet.parameters()) == 859_520_964
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
    assert pipeline.tokenizer("a cat").input_ids == [49406, 320, 2368, 49407]
    assert pipeline.safety_checker is None


@given(st.text(alphabet=string.ascii_letters + string.digits + " !\"#$%'()*+,-./:;=>?@[\\]^_`{|}~äöüßéñ日本語🦊", max_size=120))
def test_the_tokenizer_is_clips_own(text: str) -> None:
    """Against OpenCLIP's, which unescapes HTML and mends broken Unicode first."""
    ours = clip_tokenizer()(text, padding="max_length", truncation=True, max_length=77).input_ids
    theirs = open_clip.get_tokenizer("ViT-B-32")([text])[0].tolist()
    end = theirs.index(49407) + 1
    assert ours[:end] == theirs[:end]
    assert set(ours[end:]) <= {49407}


def test_what_is_no_base_is_refused_in_a_line(tmp_path: Path) -> None:
    whole = save_single_file(tiny_pipeline(), tmp_path / "tiny.safetensors")
    (tmp_path / "old.ckpt").write_bytes(b"pickle")
    (tmp_path / "LOUD.SAFETENSORS").write_bytes(whole.read_bytes())
    (tmp_path / "torn.safetensors").write_bytes(whole.read_bytes()[:-100])
    save_file({"lora_unet_conv_in.lora_up.weight": torch.ones(2, 2)}, tmp_path / "lora.safetensors")
    save_file({name: t.contiguous() for name, t in ldm_vae(tiny_vae().state_dict()).items()}, tmp_path / "vae.safetensors")
    eight = {"model.diffusion_model.out.2.weight": torch.ones(2).to(torch.float8_e4m3fn)}
    save_file(eight, tmp_path / "fp8.safetensors")
    save_file({"weight": torch.ones(2)}, tmp_path / "any.safetensors")
    lonely = {f"double_blocks.0.img_attn.norm.{k}_norm.scale": torch.ones(2) for k in ("key", "query")}
    save_file({f"model.diffusion_model.{name}": t for name, t in lonely.items()}, tmp_path / "flux.safetensors")
    for name, message in {
        "old.ckpt": r"old.ckpt: \.ckpt is not read — use a \.safetensors file; others can run code when they are opened",
        "LOUD.SAFETENSORS": r"LOUD.SAFETENSORS: \.SAFETENSORS is not read — use a \.safetensors file",
        "torn.safetensors": "torn.safetensors: cannot be read, or was not downloaded to its end .* — fetch the file again",
        "lora.safetensors": "this file is a LoRA, not a base model — give a checkpoint of SD 1.x, SD 2.x, SDXL",
        "vae.safetensors": "this file is an autoencoder alone, which is for --vae — ",
        "tiny.safetensors": "tiny.safetensors: the checkpoint cannot be loaded: .*; one of an unusual layout needs --base-config",
        "any.safetensors": "this file is of an unknown model — .* or a diffusers folder of the same model with --base-config",
        "fp8.safetensors": "out.2.weight is stored as F8_E4M3, which is not read — use the fp16, bf16 or fp32 version",
        "flux.safetensors": "the file lacks vae, text_encoder, T5 — give the diffusers folder of the whole model to --base, and this",
    }.items():
        with pytest.raises(BaseModelError, match=message):
            drawn(tmp_path / name)
    for layout, message in {"nothing": r"no diffusers pipeline here \(model_index.json cannot be read: .* to --base-config"}.items():
        with pytest.raises(BaseModelError, match=message):
            drawn(whole, base_config=str(tmp_path / layout))
    tiny_xl_pipeline().save_pretrained(tmp_path / "xl")
    with pytest.raises(BaseModelError, match=r"tiny.safetensors: (the checkpoint cannot be loaded|weights are missing): "):
        drawn(whole, base_config=str(tmp_path / "xl"))


def test_an_autoencoder_from_a_file(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "sd")
    torch.manual_seed(3)
    other = tiny_vae()
    other.save_pretrained(tmp_path / "other")
    file = tmp_path / "other.safetensors"
    save_file({name: t.contiguous() for name, t in ldm_vae(other.state_dict()).items()}, file)
    found = drawn(tmp_path / "sd", vae=str(file))
    assert torch.equal(found, drawn(tmp_path / "sd", vae=str(tmp_path / "other")))
    assert not torch.equal(found, drawn(tmp_path / "sd"))
    with pytest.raises(BaseModelError, match="nothing: does not exist — give the folder or file of an autoencoder to --vae"):
        drawn(tmp_path / "sd", vae=str(tmp_path / "nothing"))


def test_what_is_no_autoencoder_is_refused_in_a_line(tmp_path: Path) -> None:
    """Pickles are never opened, and a file of another family is not taken for a torn one."""
    tiny_pipeline().save_pretrained(tmp_path / "sd")
    whole = {name: t.contiguous() for name, t in ldm_vae(tiny_vae().state_dict()).items()}
    torch.save(whole, tmp_path / "old.vae.pt")
    less = {name: t for name, t in whole.items() if name != "decoder.conv_out.weight"}
    wide = diffusers.AutoencoderKL(block_out_channels=(8,), latent_channels=16, norm_num_groups=4).state_dict()
    files: dict[str, dict[str, Tensor]] = {
        "less": less,
        "wide": {name: t.contiguous() for name, t in ldm_vae(wide, levels=1).items()},
        "lora": {"lora_unet_conv_in.lora_up.weight": torch.ones(2, 2)},
        "eight": {name: t.to(torch.float8_e4m3fn) for name, t in whole.items()},
        "none": {"weight": torch.ones(2)},
    }
    for name, tensors in files.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "wide.safetensors").read_bytes()[:-100])
    for name, message in {
        "old.vae.pt": r"old.vae.pt: .pt is not read — use a .safetensors file; others can run code when they are opened",
        "less.safetensors": "less.safetensors: the autoencoder cannot be loaded: weights are missing in it — fetch the file again, or",
        "wide.safetensors": "its latents are of another shape than the base's (16 channels at 1/1 instead of 4 channels at 1/2)",
        "lora.safetensors": "lora.safetensors: this file is a LoRA — give the folder or file of an autoencoder to --vae",
        "eight.safetensors": "decoder.conv_in.bias is stored as F8_E4M3, which is not read — use the fp16, bf16 or fp32 version",
        "none.safetensors": "this file holds no whole autoencoder — give the folder or file of an autoencoder to --vae",
        "torn.safetensors": "cannot be read, or was not downloaded to its end (",
    }.items():
        with pytest.raises(BaseModelError, match=re.escape(message)):
            drawn(tmp_path / "sd", vae=str(tmp_path / name))


def test_an_autoencoder_of_a_whole_model_and_one_in_diffusers_layout(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "sd")
    other = tiny_pipeline(seed=5)
    other.save_pretrained(tmp_path / "other")
    wanted = drawn(tmp_path / "sd", vae=str(tmp_path / "other"))
    file = save_single_file(other, tmp_path / "whole.safetensors")
    assert torch.equal(drawn(tmp_path / "sd", vae=str(file)), wanted)
    assert torch.equal(drawn(tmp_path / "sd", vae=str(tmp_path / "other/vae/diffusion_pytorch_model.safetensors")), wanted)


def test_a_denoiser_of_eight_bits_is_read_unless_it_needs_a_scale(tmp_path: Path) -> None:
    """Without its scales it would load as well, and draw noise."""
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(tmp_path / "sd")
    tensors = {f"model.diffusion_model.{name}": t.contiguous() for name, t in ldm_unet(pipeline.unet.state_dict()).items()}
    last = "model.diffusion_model.out.2"
    eight = tensors | {f"{last}.weight": tensors[f"{last}.weight"].to(torch.float8_e4m3fn)}
    save_file(eight, tmp_path / "eight.safetensors")
    save_file(eight | {f"{last}.scale_weight": torch.ones(1)}, tmp_path / "scaled.safetensors")
    found: Any = load_pipeline(tmp_path / "sd", device="cpu", dtype=torch.float32, denoiser=tmp_path / "eight.safetensors")
    assert torch.equal(found.unet.conv_out.weight, eight[f"{last}.weight"].float())
    with pytest.raises(BaseModelError, match=r"its weights are stored in few bits with a scale .*scale_weight.*, which is not read — use"):
        drawn(tmp_path / "sd", denoiser=str(tmp_path / "scaled.safetensors"))
    save_file({"lora_unet_conv_in.lora_up.weight": torch.ones(2, 2)}, tmp_path / "lora.safetensors")
    with pytest.raises(BaseModelError, match=r"this file is a LoRA, not a base model — give a unet of SD 1\.x and 2\.x to --denoiser"):
        drawn(tmp_path / "sd", denoiser=str(tmp_path / "lora.safetensors"))


UNET = "model.diffusion_model."
HALF_KNOWN: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "a transformer with other positions": ({f"{UNET}joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,)}, "unknown model"),
    "a ControlNet": ({"control_layers.14.adaLN_modulation.0.weight": (2,), "control_noise_refiner.0.before_proj.weight": (2,)}, "unknown"),
    "half a FLUX.1": ({"double_blocks.0.img_attn.norm.key_norm.scale": (2,), "guidance_in.in_layer.bias": (2,)}, "unknown model"),
    "CosXL": ({"edm_vpred.sigma_max": (1,)}, r"not supported \(EDM\)"),
    "Wan": ({"patch_embedding.weight": (2,), "head.modulation": (2,)}, r"not supported \(wan-"),
    "an inpainting model": ({f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}, r"not supported \(inpainting\)"),
}


@pytest.mark.parametrize("case", HALF_KNOWN)
def test_a_model_that_diffusers_half_knows(tmp_path: Path, case: str) -> None:
    shapes, message = HALF_KNOWN[case]
    with pytest.raises(BaseModelError, match=f"this file is of an? .*{message}.* — give a checkpoint of SD 1.x"):
        checkpoint_class(hollow(tmp_path / "one.safetensors", shapes))
