"""The demo world's autoencoder: 64 × 64 pictures ⇄ 4 × 16 × 16 latents, a diffusers ``AutoencoderKL``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from studies.demo.drawing.characters import CHARACTERS, random_character
from studies.demo.drawing.draw import Pixels, draw
from studies.demo.drawing.scenes import random_scene, with_character
from studies.demo.drawing.styles import FLAT, STYLES, random_style
from studies.demo.training import Plan, fit, to_tensor

# Two cycles: the first learns shapes, the second, on fewer plain pictures, the rarer colours and textures.
PLANS = (Plan(steps=3600, rate=3e-3, decay=0.0, seed=1, save_every=250), Plan(steps=4000, rate=2e-3, decay=0.0, seed=11, save_every=250))
_PLAIN = (0.62, 0.25)
_BATCH, _PICTURES = 8, 12_000
_NOISE = 0.1


def new_vae() -> AutoencoderKL:
    """An untrained autoencoder with the layout of SD 1.5's, two levels shallower and far narrower."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def train_vae(work: Path, scale: float) -> AutoencoderKL:
    """Train on plain scenes, styles and characters of every kind, then standardise the latents."""
    torch.manual_seed(1)
    vae = new_vae().train()
    for number, (plan, plain) in enumerate(zip(PLANS, _PLAIN, strict=True), start=1):
        pictures = _pictures(np.random.default_rng(number), round(_PICTURES * max(scale, 0.1)), plain)

        def loss(rng: np.random.Generator, pictures: Pixels = pictures) -> Tensor:
            batch = to_tensor(pictures[rng.integers(len(pictures), size=_BATCH)])
            latents = vae.encode(batch).latent_dist.mean
            # Noise of a fixed size instead of a learned one: the decoder learns to bear small errors, and no channel can collapse.
            decoded = vae.decode(latents + _NOISE * torch.randn_like(latents)).sample
            total: Tensor = _reconstruction(decoded, batch) + 1e-3 * latents.square().mean()
            return total

        fit([vae], loss, replace(plan, steps=round(plan.steps * scale)), work / f"vae-{number}.pt")
    standardise(vae.eval(), to_tensor(pictures[:1024]))
    return vae


@torch.no_grad()
def standardise(vae: AutoencoderKL, images: Tensor) -> None:
    """Give every latent channel mean 0 and standard deviation 1 on ``images``, by an affine map folded into the 1 × 1
    convolutions on both sides of the latents."""
    latents = vae.encode(images).latent_dist.mean
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    quant, post = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.weight[channels:] = 0
    quant.bias[channels:] = 2 * torch.log(_NOISE / std)
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(dim=1)
    post.weight *= std[None, :, None, None]


def _reconstruction(decoded: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the pictures and of their edges, and the squared error of their 4 × 4 means, which are their colours."""
    difference = decoded - target
    edges = sum((difference.diff(dim=d)).abs().mean() for d in (2, 3))
    return difference.abs().mean() + 0.7 * edges + 3 * nn.functional.avg_pool2d(difference, 4).square().mean()


def _pictures(rng: np.random.Generator, count: int, plain: float) -> Pixels:
    """Drawn pictures, uint8: a share ``plain`` of them in the plain style, a third with a character, some with hats."""
    named, characters = list(STYLES.values()), list(CHARACTERS.values())
    drawn = []
    for _ in range(count):
        scene = replace(random_scene(rng), hat=rng.random() < 0.1)
        if rng.random() < 0.33:
            character = characters[int(rng.integers(len(characters)))] if rng.random() < 0.4 else random_character(rng)
            scene = with_character(scene, "x", character, rng)
        style = FLAT
        if rng.random() > plain:
            style = named[int(rng.integers(len(named)))] if rng.random() < 0.5 else random_style(rng)
        drawn.append(np.round(draw(scene, (style,), rng=rng) * 255).astype(np.uint8))
    return np.stack(drawn)
