"""Blueprints: pipeline configurations of the models in known single files, which do not contain them.

The values come from the published configurations of stable-diffusion-v1-5, stable-diffusion-2-1,
stable-diffusion-xl-base-1.0, stable-diffusion-3-medium, stable-diffusion-3.5-medium and -large, FLUX.1-dev and -schnell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Blueprint:
    """The configuration of a pipeline.

    Attributes:
        pipeline: diffusers pipeline class.
        denoiser: class and configuration of the U-Net or transformer.
        vae: configuration of the autoencoder.
        texts: class and configuration of each text encoder, in order.
        scheduler: class and configuration of the scheduler.
        options: options of the pipeline.
    """

    pipeline: str
    denoiser: tuple[str, Config]
    vae: Config
    texts: tuple[tuple[str, Config], ...]
    scheduler: tuple[str, Config]
    options: Config = field(default_factory=dict)


def _clip(width: int, layers: int, activation: str, projection: int) -> Config:
    """Returns the configuration of a CLIP text encoder; vocabulary and 77 positions are transformers' defaults."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "hidden_act": activation,
        "projection_dim": projection,
        "eos_token_id": 49407,
        "bos_token_id": 49406,
    }


def _vae(size: int, scale: float, shift: float | None = None, channels: int = 4) -> Config:
    own: Config = {} if shift is None else {"shift_factor": shift, "use_quant_conv": False, "use_post_quant_conv": False}
    return {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": channels,
        "sample_size": size,
        "scaling_factor": scale,
        **own,
    }


_L, _G = _clip(768, 12, "quick_gelu", 768), _clip(1280, 32, "gelu", 1280)
_T5: Config = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "vocab_size": 32128,
}
_NOISE: Config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
_SD_TYPES: Config = {
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
}
_XL_UNET: Config = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_TWO = (("CLIPTextModel", _L), ("CLIPTextModelWithProjection", _G))
_THREE = (("CLIPTextModelWithProjection", _L), ("CLIPTextModelWithProjection", _G), ("T5EncoderModel", _T5))
_SD3_VAE = _vae(1024, 1.5305, 0.0609, 16)
_FLOW = ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0})


def _sd3(layers: int, positions: int, **more: Any) -> tuple[str, Config]:
    """Returns class and configuration of a Stable Diffusion 3 transformer, which has as many attention heads as layers."""
    width: Config = {"num_layers": layers, "num_attention_heads": layers, "caption_projection_dim": 64 * layers}
    whole: Config = {"sample_size": 128, "in_channels": 16, "out_channels": 16, "pooled_projection_dim": 2048}
    return "SD3Transformer2DModel", {**whole, **width, "attention_head_dim": 64, "pos_embed_max_size": positions, **more}


def _flux(guidance: bool, **schedule: Any) -> Blueprint:
    return Blueprint(
        "FluxPipeline",
        ("FluxTransformer2DModel", {"guidance_embeds": guidance}),
        _vae(1024, 0.3611, 0.1159, 16),
        (("CLIPTextModel", _L), ("T5EncoderModel", _T5)),
        ("FlowMatchEulerDiscreteScheduler", {"base_shift": 0.5, "max_shift": 1.15, **schedule}),
    )


def _sd2(size: int, prediction: str) -> Blueprint:
    unet: Config = {
        **_SD_TYPES,
        "sample_size": size // 8,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
        "upcast_attention": True,  # attention products overflow fp16 with sliced attention
    }
    return Blueprint(
        "StableDiffusionPipeline",
        ("UNet2DConditionModel", unet),
        _vae(size, 0.18215),
        (("CLIPTextModel", _clip(1024, 23, "gelu", 512)),),
        ("DDIMScheduler", {**_NOISE, "clip_sample": False, "set_alpha_to_one": False, "prediction_type": prediction}),
    )


BLUEPRINTS: Mapping[str, Blueprint] = {
    "v1": Blueprint(
        "StableDiffusionPipeline",
        ("UNet2DConditionModel", {**_SD_TYPES, "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}),
        _vae(512, 0.18215),
        (("CLIPTextModel", _L),),
        ("PNDMScheduler", {**_NOISE, "skip_prk_steps": True, "set_alpha_to_one": False}),
    ),
    "v2": _sd2(768, "v_prediction"),
    "v2-base": _sd2(512, "epsilon"),
    "xl_base": Blueprint(
        "StableDiffusionXLPipeline",
        ("UNet2DConditionModel", _XL_UNET),
        _vae(1024, 0.13025),
        _TWO,
        ("EulerDiscreteScheduler", {**_NOISE, "timestep_spacing": "leading"}),
        {"force_zeros_for_empty_prompt": True},
    ),
    "sd3": Blueprint("StableDiffusion3Pipeline", _sd3(24, 192), _SD3_VAE, _THREE, _FLOW),
    "sd35_medium": Blueprint(
        "StableDiffusion3Pipeline", _sd3(24, 384, qk_norm="rms_norm", dual_attention_layers=list(range(13))), _SD3_VAE, _THREE, _FLOW
    ),
    "sd35_large": Blueprint("StableDiffusion3Pipeline", _sd3(38, 192, qk_norm="rms_norm"), _SD3_VAE, _THREE, _FLOW),
    "flux-dev": _flux(True, shift=3.0, use_dynamic_shifting=True),
    "flux-schnell": _flux(False, shift=1.0, use_dynamic_shifting=False),
}
"""diffusers model type of a single file → blueprint; ``v2-base`` is the noise-predicting variant of ``v2``."""
