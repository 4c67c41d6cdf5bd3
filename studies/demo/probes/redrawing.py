"""Drawings sent through the demo base's autoencoder, and through noise and back (SDEdit, arXiv 2108.01073)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor, nn

from studies.demo.probes.source_deltas import active, load_deltas
from studies.demo.sources import SOURCES
from studies.demo.training import to_pixels, to_tensor
from studies.demo.world import GUIDANCE

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Noise:
    """How much noise is added, and taken away again.

    Attributes:
        steps, of: the last ``steps`` of a schedule of ``of`` steps are drawn again; all of them forget the picture.
        seed: seed of the noise.
    """

    steps: int
    of: int
    seed: int

    @property
    def level(self) -> float:
        """Share of the schedule that is drawn again, 0 to 1."""
        return self.steps / self.of


@dataclass(frozen=True)
class Redrawer:
    """The base, with the sources at hand.

    Attributes:
        pipeline: the base in fp32.
        deltas: name of a source → weight → what the source adds to it.
    """

    pipeline: StableDiffusionPipeline
    deltas: Mapping[str, Mapping[nn.Parameter, Tensor]]

    @torch.no_grad()
    def encode(self, pictures: Pictures) -> Tensor:
        """Latents (n, 4, 16, 16) of pictures (n, 64, 64, 3)."""
        latents: Tensor = self.pipeline.vae.encode(to_tensor(pictures).to(self.pipeline.device)).latent_dist.mean
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Pictures:
        """Pictures (n, 64, 64, 3) of latents (n, 4, 16, 16)."""
        pictures: Pictures = np.round(to_pixels(self.pipeline.vae.decode(latents).sample) * 255).astype(np.uint8)
        return pictures

    @torch.no_grad()
    def redraw(self, latents: Tensor, captions: Sequence[str], noise: Noise, strengths: Mapping[str, float]) -> Tensor:
        """Add noise to latents and let the base, with sources active, take it away again.

        Args:
            latents: (n, 4, 16, 16).
            captions: what each picture is asked to show.
            noise: how much of it.
            strengths: name of a source → its strength.

        Returns:
            Latents of the same shape.
        """
        return self._drawn_again(latents, captions, noise, [strengths], lambda guided: guided[0])

    @torch.no_grad()
    def redraw_composed(self, latents: Tensor, captions: Sequence[str], noise: Noise, strengths: Mapping[str, float]) -> Tensor:
        """As ``redraw``, but every source draws by itself, and what they add to the base's output is added up."""
        models = [{}, *({name: 1.0} for name in strengths)]
        gains = list(strengths.values())

        def composed(guided: Sequence[Tensor]) -> Tensor:
            return guided[0] + sum((g * (own - guided[0]) for g, own in zip(gains, guided[1:], strict=True)), torch.zeros_like(guided[0]))

        return self._drawn_again(latents, captions, noise, models, composed)

    def _drawn_again(
        self,
        latents: Tensor,
        captions: Sequence[str],
        noise: Noise,
        models: Sequence[Mapping[str, float]],
        combine: Callable[[Sequence[Tensor]], Tensor],
    ) -> Tensor:
        scheduler = self.pipeline.scheduler
        scheduler.set_timesteps(noise.of)
        timesteps = scheduler.timesteps[noise.of - noise.steps :]
        drawn = torch.randn(latents.shape, generator=torch.Generator().manual_seed(noise.seed)).to(latents)
        latents = scheduler.add_noise(latents, drawn, timesteps[:1].to(latents.device))
        states = []
        for strengths in models:
            with active(strengths, self.deltas):
                states.append(self._states([""] * len(captions) + list(captions)))
        for step in timesteps:
            guided = []
            for strengths, texts in zip(models, states, strict=True):
                with active(strengths, self.deltas):
                    plain, asked = self.pipeline.unet(torch.cat([latents] * 2), step, texts).sample.chunk(2)
                guided.append(plain + GUIDANCE * (asked - plain))
            latents = scheduler.step(combine(guided), step, latents).prev_sample
        return latents

    def _states(self, captions: Sequence[str]) -> Tensor:
        tokens = self.pipeline.tokenizer
        padded = tokens(list(captions), padding="max_length", max_length=tokens.model_max_length, truncation=True, return_tensors="pt")
        states: Tensor = self.pipeline.text_encoder(padded.input_ids.to(self.pipeline.device)).last_hidden_state
        return states


def load_redrawer(base: Path, sources: Path, device: str = "cpu") -> Redrawer:
    """The built base with the built sources that lie in a folder."""
    pipeline = StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32, safety_checker=None).to(device)
    return Redrawer(pipeline, {name: load_deltas(sources / f"{name}.safetensors", pipeline) for name in SOURCES})
