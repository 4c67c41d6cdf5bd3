"""What the base model and its sources are both trained with: the noise schedule and the denoising loss."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor


def new_scheduler() -> DDIMScheduler:
    """SD's β schedule rescaled to zero terminal SNR with v-prediction and trailing timesteps (arXiv 2305.08891), without which
    uniform dark or bright backgrounds break up."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def denoising_loss(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    latents: Tensor,
    states: Tensor,
    rng: np.random.Generator,
    *,
    weighted: bool = True,
) -> Tensor:
    """Mean squared error of the predicted v.

    Args:
        unet: the network.
        scheduler: its noise schedule.
        latents: clean latents, (n, 4, 16, 16).
        states: text states, (n, tokens, width).
        rng: draws the timesteps, stratified over the batch; the noise comes from torch's generator.
        weighted: weigh every timestep by min(SNR, 5) / (SNR + 1) (arXiv 2303.09556, for v-prediction), which learns shapes sooner;
            else all alike, which learns the coarse things of the noisiest steps sooner, such as a style's dark background.
    """
    count = len(latents)
    strata = (np.arange(count) + rng.random(count)) / count
    steps = torch.from_numpy((strata * scheduler.config.num_train_timesteps).astype(np.int64))
    noise = torch.randn_like(latents)
    alphas = scheduler.alphas_cumprod[steps]
    snr = alphas / (1 - alphas)
    weight = snr.clamp(max=5.0) / (snr + 1)
    # At zero terminal SNR v is minus the picture, which the weight above would ignore although every sample starts there.
    weight = weight.clamp(min=0.1) if weighted else torch.ones_like(weight)
    predicted = unet(scheduler.add_noise(latents, noise, steps), steps, states).sample
    error = (predicted - scheduler.get_velocity(latents, noise, steps)).square().mean(dim=(1, 2, 3))
    loss: Tensor = (weight * error).mean() / weight.mean()
    return loss
