"""Blueprints: configurations of the models in known single files, which do not contain them.

The values of all families come from the published configurations of stable-diffusion-v1-5, stable-diffusion-2-1,
stable-diffusion-xl-base-1.0, stable-diffusion-3-medium, stable-diffusion-3.5-medium and -large, FLUX.1-dev and -schnell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """The configuration of a pipeline.

    Attributes:
        model: display name of the models in such files.
        denoiser: configuration of the U-Net or transformer.
        vae: configuration of the autoencoder.
        texts: class and configuration of each text encoder, in order.
        scheduler: class and configuration of the scheduler.
        options: options of the pipeline.
    """

    model: str
    denoiser: Config
    vae: Config
    texts: tuple[tuple[str, Config], ...]
    scheduler: tuple[str, Config]
    options: Config = field(default_factory=dict)


def clip_config(*, width: int, layers: int, activation: str, projection: int) -> Config:
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


def vae_config(*, size: int, scale: float, shift: float | None = None, channels: int = 4) -> Config:
    """Returns the configuration of an autoencoder; with a shift of the latents it has no convolutions before and after them."""
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


CLIP_L = clip_config(width=768, layers=12, activation="quick_gelu", projection=768)
CLIP_G = clip_config(width=1280, layers=32, activation="gelu", projection=1280)
T5_XXL: Config = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "vocab_size": 32128,
}
