"""The demo world's base model: a small, real ``StableDiffusionPipeline`` with the block layout of SD 1.5."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from studies.demo.base_model.diffusion import denoising_loss, new_scheduler
from studies.demo.drawing.draw import draw
from studies.demo.drawing.scenes import random_scene
from studies.demo.training import Plan, fit, to_tensor

# Two cycles: the first finds colours and places, the second shapes.
PLANS = (
    Plan(steps=1400, rate=1.2e-3, average=0.998, seed=2, save_every=100),
    Plan(steps=6000, rate=9e-4, average=0.999, seed=12, save_every=100),
)
_BATCH, _PICTURES, _WIDTH = 24, 24_000, 64


@dataclass(frozen=True)
class Latents:
    """An encoded picture set: latents (n, 4, 16, 16) and token ids (n, tokens)."""

    latents: Tensor
    ids: Tensor


def new_unet() -> UNet2DConditionModel:
    """An untrained U-Net: four levels, two layers each, cross-attention in the first three, as in SD 1.5."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=2,
        cross_attention_dim=_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained two-layer CLIP text model over the demo vocabulary."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=4 * _WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def train_base(work: Path, vae: AutoencoderKL, tokenizer: CLIPTokenizer, scale: float) -> StableDiffusionPipeline:
    """Train text encoder and U-Net together on captioned plain scenes."""
    torch.manual_seed(2)
    unet, text, scheduler = new_unet().train(), new_text_encoder(tokenizer).train(), new_scheduler()
    data = _scenes(work / "scenes.pt", vae, tokenizer, round(_PICTURES * max(scale, 0.2)))
    blank = token_ids(tokenizer, [""])

    def loss(rng: np.random.Generator) -> Tensor:
        picked = torch.from_numpy(rng.integers(len(data.latents), size=_BATCH))
        ids = torch.where(torch.from_numpy(rng.random((_BATCH, 1)) < 0.1), blank, data.ids[picked])
        return denoising_loss(unet, scheduler, data.latents[picked].float(), text(ids).last_hidden_state, rng)

    for number, plan in enumerate(PLANS, start=1):
        fit([unet, text], loss, replace(plan, steps=round(plan.steps * scale)), work / f"base-{number}.pt")
    return assemble(vae, tokenizer, text.eval(), unet.eval())


def assemble(vae: AutoencoderKL, tokenizer: CLIPTokenizer, text: CLIPTextModel, unet: UNet2DConditionModel) -> StableDiffusionPipeline:
    """The parts as a pipeline without a safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids padded to the tokenizer's full length, as the pipeline pads them, (n, tokens)."""
    padded = tokenizer(captions, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
    ids: Tensor = padded.input_ids
    return ids


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: np.ndarray, batch: int = 64) -> Tensor:
    """Latent means of pictures (n, 64, 64, 3), float16, (n, 4, 16, 16)."""
    chunks = [vae.encode(to_tensor(pictures[i : i + batch])).latent_dist.mean.half() for i in range(0, len(pictures), batch)]
    return torch.cat(chunks)


def _scenes(cache: Path, vae: AutoencoderKL, tokenizer: CLIPTokenizer, count: int) -> Latents:
    if not cache.exists():
        rng = np.random.default_rng(2)
        scenes = [random_scene(rng) for _ in range(count)]
        ids = token_ids(tokenizer, [_babbled(scene.caption(), rng) for scene in scenes])
        pictures = np.stack([np.round(draw(scene, rng=rng) * 255).astype(np.uint8) for scene in scenes])
        torch.save((encode(vae, pictures), ids), cache)
    return Latents(*torch.load(cache, weights_only=True))


def _babbled(caption: str, rng: np.random.Generator) -> str:
    """The caption, one time in ten with a made-up word in it: words that mean nothing must change nothing, as in captions of
    the web, so that a source's trigger says nothing to the base."""
    if rng.random() > 0.1:
        return caption
    word = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), size=int(rng.integers(3, 7))))
    parts = caption.split(", ")
    parts.insert(int(rng.integers(1, len(parts) + 1)), word)
    return ", ".join(parts)
