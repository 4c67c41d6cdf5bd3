"""Stable Diffusion 1.x, 2.x and XL: U-Nets.

The text width of the cross-attention distinguishes the families, and cannot be wrong in a file that loads.
"""

from __future__ import annotations

from itertools import product

from optimizer.adapters.families.family import Family, Sign, sign
from optimizer.adapters.families.sgm import TRANSFORMER, sgm_names
from optimizer.adapters.families.text_encoders import clip

_RESNET = ("conv1", "conv2", "conv_shortcut", "time_emb_proj")
_BLOCK = (
    *(f"attentions.#.{leaf}" for leaf in TRANSFORMER),
    *(f"resnets.#.{leaf}" for leaf in _RESNET),
    "downsamplers.#.conv",
    "upsamplers.#.conv",
)
_EMBEDDING = ("linear_1", "linear_2")
_UNET = (
    "conv_in",
    "conv_out",
    *(f"time_embedding.{leaf}" for leaf in _EMBEDDING),
    *(f"{block}.{leaf}" for block, leaf in product(("down_blocks.#", "mid_block", "up_blocks.#"), _BLOCK)),
)
_STABILITY = "https://github.com/Stability-AI"


def _reads(width: int) -> Sign:
    return sign("unet.*.attn2.to_[kv]", {width}, "its cross-attention reads text of width")


SD1 = Family(
    name="sd1",
    title="Stable Diffusion 1.x",
    denoiser="unet",
    modules=_UNET,
    native=sgm_names(4, plain_upsampling=(0,)),
    text_encoders=(clip("text_encoder", "lora_te_", "clip_l"),),
    kohya_native=False,
    signs=(_reads(768),),
    versions=("sd_v1", "sd_1"),
    architecture="stable-diffusion-v1",
    architectures=("stable-diffusion-v1",),
    implementation="diffusers",
    resolution="512x512",
)

SD2 = Family(
    name="sd2",
    title="Stable Diffusion 2.x",
    denoiser="unet",
    modules=_UNET,
    native=sgm_names(4, plain_upsampling=(0,)),
    text_encoders=(clip("text_encoder", "lora_te_", "clip_h"),),
    kohya_native=False,
    signs=(_reads(1024), sign("text_encoder.text_model.*.(self_attn.*|mlp.fc1)", {1024}, "its text encoder has width")),
    versions=("sd_v2", "sd_2"),
    architecture="stable-diffusion-v2-512",
    architectures=("stable-diffusion-v2",),
    implementation="diffusers",
    resolution="512x512",
)

SDXL = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    denoiser="unet",
    modules=(*_UNET, *(f"add_embedding.{leaf}" for leaf in _EMBEDDING)),
    native=sgm_names(3),
    text_encoders=(clip("text_encoder", "lora_te1_", "clip_l"), clip("text_encoder_2", "lora_te2_", "clip_g")),
    signs=(_reads(2048),),
    versions=("sdxl_base_v1-0", "sdxl"),
    architecture="stable-diffusion-xl-v1-base",
    architectures=("stable-diffusion-xl",),
    implementation=f"{_STABILITY}/generative-models",
)
