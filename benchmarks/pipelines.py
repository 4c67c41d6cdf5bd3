"""Pipelines of the real models' size with random weights, saved as diffusers saves them: their pictures are noise, their times are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
)
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn
from transformers import CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from benchmarks.shapes import Shapes, clip, flux_shapes, random_file, sdxl_shapes, sdxl_unet
from tests.tiny import tiny_flux_pipeline, tiny_t5_tokenizer, tiny_tokenizer, tiny_xl_pipeline

FAMILIES: dict[str, tuple[Callable[[], DiffusionPipeline], Callable[[], DiffusionPipeline], Callable[[], Shapes]]] = {}
"""Family → a pipeline of full size, a tiny one, the shapes that a LoRA for the full one changes."""


def saved(family: str, folder: Path, *, device: str, small: bool) -> Path:
    """Write a pipeline in bfloat16; its weights are drawn where it will compute, which takes seconds on a GPU."""
    full, tiny, _ = FAMILIES[family]
    default = torch.get_default_dtype()
    torch.manual_seed(0)
    try:
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(device):
            pipeline: Any = tiny() if small else full()
    finally:
        torch.set_default_dtype(default)
    pipeline.save_pretrained(folder / family)
    return folder / family


def sources(family: str, folder: Path, shapes: Shapes, count: int, rank: int) -> list[Path]:
    """Random LoRA files for these shapes."""
    return [random_file(folder / f"source-{i}.safetensors", shapes, rank, seed=i, base=family) for i in range(count)]


def full_shapes(family: str) -> Shapes:
    """What a LoRA for a family of full size changes."""
    return FAMILIES[family][2]()


def _vae(channels: int, shift: float | None) -> AutoencoderKL:
    """The autoencoder of SDXL (4 channels) or FLUX.1 (16)."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
        sample_size=1024,
        scaling_factor=0.13025 if shift is None else 0.3611,
        shift_factor=shift,
        force_upcast=False,
    ).eval()


def _tokenizer() -> CLIPTokenizer:
    """CLIP's, of letters."""
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 77
    return tokenizer


def _t5_tokenizer() -> T5Tokenizer:
    """T5's, of letters."""
    tokenizer = tiny_t5_tokenizer()
    tokenizer.model_max_length = 512
    return tokenizer


def _t5() -> nn.Module:
    """The encoder of T5 v1.1 XXL, which FLUX.1 reads with."""
    shape = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    model: nn.Module = T5EncoderModel(T5Config(**shape, feed_forward_proj="gated-gelu", vocab_size=32128)).eval()
    return model


def _sdxl() -> DiffusionPipeline:
    tokenizer = _tokenizer()
    return StableDiffusionXLPipeline(
        vae=_vae(4, None),
        text_encoder=clip(768, 12, "quick_gelu"),
        text_encoder_2=clip(1280, 32, "gelu"),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=sdxl_unet().eval(),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1),
        add_watermarker=False,
    )


def _flux() -> DiffusionPipeline:
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_vae(16, 0.1159),
        text_encoder=clip(768, 12, "quick_gelu"),
        tokenizer=_tokenizer(),
        text_encoder_2=_t5(),
        tokenizer_2=_t5_tokenizer(),
        transformer=FluxTransformer2DModel(guidance_embeds=True).eval(),
    )


FAMILIES |= {"sdxl": (_sdxl, tiny_xl_pipeline, sdxl_shapes), "flux1": (_flux, tiny_flux_pipeline, flux_shapes)}
