"""Shapes of the modules that LoRA files change, from the real architectures; nothing is downloaded and no weight is allocated."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel, QwenImageTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from optimizer.adapters import Adapter, Factors, live_modules, save_adapter

Shapes = Mapping[str, tuple[int, ...]]


@cache
def sdxl_shapes() -> dict[str, tuple[int, ...]]:
    """Canonical path → weight shape of what a LoRA for Stable Diffusion XL usually changes: 722 modules of the U-Net, all linear ones in
    its transformers with proj_in and proj_out, and 72 + 192 of the text encoders."""
    with torch.device("meta"):
        models = {"unet": sdxl_unet(), "text_encoder": clip(768, 12, "quick_gelu"), "text_encoder_2": clip(1280, 32, "gelu")}
    return {path: tuple(module.weight.shape) for path, module in live_modules(models).items() if _usual(path)}


@cache
def sd1_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of the modules that LoRAs of Stable Diffusion 1.5 change: 192 modules of the U-Net, 72 of the text encoder."""
    with torch.device("meta"):
        unet: nn.Module = UNet2DConditionModel(cross_attention_dim=768)
        models = {"unet": unet, "text_encoder": clip(768, 12, "quick_gelu")}
    return {path: tuple(module.weight.shape) for path, module in live_modules(models).items() if _usual(path)}


@cache
def sd2_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of the modules that LoRAs of Stable Diffusion 2.1 change: 192 modules of the U-Net, 138 of the text encoder."""
    with torch.device("meta"):
        unet: nn.Module = UNet2DConditionModel(cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True)
        models = {"unet": unet, "text_encoder": clip(1024, 23, "gelu")}
    return {path: tuple(module.weight.shape) for path, module in live_modules(models).items() if _usual(path)}


@cache
def sd3_shapes() -> dict[str, tuple[int, ...]]:
    """All linear modules in the 24 joint blocks of Stable Diffusion 3.5 medium, the first 13 of which have a second attention."""
    with torch.device("meta"):
        model = SD3Transformer2DModel(
            sample_size=128,
            num_layers=24,
            num_attention_heads=24,
            caption_projection_dim=1536,
            dual_attention_layers=tuple(range(13)),
            qk_norm="rms_norm",
        )
    return _blocks(model)


@cache
def flux_shapes() -> dict[str, tuple[int, ...]]:
    """All linear modules in the 19 double and 38 single blocks of FLUX.1."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(guidance_embeds=True)
    return _blocks(model)


@cache
def qwen_shapes() -> dict[str, tuple[int, ...]]:
    """All linear modules in the 60 blocks of Qwen-Image."""
    with torch.device("meta"):
        model = QwenImageTransformer2DModel()
    return _blocks(model)


def _blocks(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {path: tuple(m.weight.shape) for path, m in live_modules({"transformer": model}).items() if "_blocks." in path}


def random_file(path: Path, shapes: Shapes, rank: int, seed: int, base: str = "sdxl") -> Path:
    """Write a kohya file in fp16 with random factors of these shapes, as its trainer would: alpha is half the rank, and projections that
    are one weight in the original code have one ``down``."""
    generator = torch.Generator().manual_seed(seed)
    modules: dict[str, Factors] = {}
    downs: dict[str, torch.Tensor] = {}
    for module, (out, *rest) in shapes.items():
        own = _together(module, base)
        if own not in downs:
            downs[own] = torch.randn((rank, math.prod(rest)), generator=generator) * 0.02
        modules[module] = Factors(torch.randn((out, rank), generator=generator) * 0.02, downs[own], rank / 2, (out, *rest))
    save_adapter(Adapter(path.stem, modules, base=base), path, dialect="kohya", dtype=torch.float16)
    return path


def random_adapter(name: str, shapes: Shapes, rank: int, seed: int, *, decay: float = 0.0, base: str = "sdxl") -> Adapter:
    """Random factors in fp32 in memory; the k-th singular value of each module falls about as (k + 1)^−decay."""
    generator = torch.Generator().manual_seed(seed)
    fall = torch.arange(1, rank + 1, dtype=torch.float32).pow(-decay)
    modules = {}
    for module, (out, *rest) in shapes.items():
        up = torch.randn((out, rank), generator=generator) * 0.02 * fall
        down = torch.randn((rank, math.prod(rest)), generator=generator) * 0.02
        modules[module] = Factors(up, down, rank / 2, (out, *rest))
    return Adapter(name, modules, base=base)


def sampled(shapes: Shapes, one_in: int) -> dict[str, tuple[int, ...]]:
    """One module in so many of each shape, at least one, so that what all of them cost together is about as many times as much."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for path, shape in shapes.items():
        groups.setdefault(shape, []).append(path)
    return {path: shape for shape, paths in groups.items() for path in paths[: max(1, round(len(paths) / one_in))]}


def _together(path: str, base: str) -> str:
    """Returns one text for all projections that the original code of a transformer keeps in one weight."""
    if not path.startswith("transformer.") or base not in ("sd3", "flux1"):
        return path
    return re.sub(r"(attn2?)\.(to_[qkv]|(add)_[qkv]_proj)$|(attn)?(proj_mlp)$", lambda m: f"{m[1] or 'attn'}.{m[3] or 'to'}", path)


def _usual(path: str) -> bool:
    return ".attentions." in path or ".self_attn." in path or ".mlp." in path


def sdxl_unet() -> nn.Module:
    """The U-Net of stabilityai/stable-diffusion-xl-base-1.0 (its unet/config.json)."""
    model: nn.Module = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        layers_per_block=2,
        cross_attention_dim=2048,
        attention_head_dim=(5, 10, 20),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return model


def clip(width: int, layers: int, activation: str) -> nn.Module:
    """CLIP ViT-L/14 (768, 12) or OpenCLIP ViT-bigG/14 (1280, 32), the text side."""
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=width,
        hidden_act=activation,
    )
    model: nn.Module = CLIPTextModelWithProjection(config) if layers > 12 else CLIPTextModel(config)
    return model
