"""The renderer: a resident pipeline that turns prompts and a delta into pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from optimizer.adapters import Adapter, fit_shapes
from optimizer.errors import TrialError, UsageError
from optimizer.rendering.live import applied, base_weights
from optimizer.rendering.memory import Ladder, Note, attempt
from optimizer.rendering.prompts import Prompt
from optimizer.rendering.settings import RenderSettings

Images = Tensor


class Renderer:
    """A resident Stable Diffusion pipeline.

    Args:
        pipeline: the loaded pipeline; its weights are changed only inside ``render`` and are restored bit for bit.
        settings: steps, guidance, batch size.
        note: is told, in one line, of every step that was taken because memory ran out.

    Attributes:
        device: where the denoiser computes; with model offload it lies elsewhere in between.

    Raises:
        UsageError: the base cannot draw in this resolution.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, settings: RenderSettings, *, note: Note | None = None) -> None:
        self.pipeline, self.settings = pipeline, settings
        self.device: torch.device = pipeline.unet.device
        self.weights = base_weights(pipeline)
        self._latent = self._latent_shape()
        self._encoded: dict[str, Tensor] = {}
        self._ladder = Ladder(pipeline, settings.batch, note)
        pipeline.set_progress_bar_config(disable=True)

    @property
    def precision(self) -> str:
        """Kind of device and number format, e.g. ``cuda torch.float16``: pictures of another one differ in their last bits."""
        return f"{self.device.type} {self.pipeline.dtype}"

    def fitted(self, adapter: Adapter) -> Adapter:
        """The adapter in the shapes of the base's weights; raises BaseModelError where a module is not in the base or differs."""
        return fit_shapes(adapter, {path: tuple(weight.shape) for path, weight in self.weights.items()})

    def render(self, prompts: Sequence[Prompt], adapter: Adapter | None = None, *, tick: Callable[[int], None] | None = None) -> Images:
        """Render every prompt with its own noise.

        Where memory runs out, it goes on with a smaller batch, then with model offload, and so do all later calls.

        Args:
            prompts: what to render; prompt and seed determine the starting noise, whatever the batch.
            adapter: what to add to the base's weights, or None for the base alone.
            tick: called with the number of pictures finished so far.

        Returns:
            Pictures, uint8, (n, 3, height, width), on the CPU.

        Raises:
            BaseModelError: the adapter does not fit the base.
            TrialError: a picture is not a number, as happens when a delta is far too strong for the dtype; or memory does not do for a
                single one.
        """
        chunks: list[Tensor] = []
        while not attempt(self._continue, chunks, prompts, adapter, tick):
            self._ladder.offload()
        return torch.cat(chunks)

    def _continue(
        self, chunks: list[Tensor], prompts: Sequence[Prompt], adapter: Adapter | None, tick: Callable[[int], None] | None
    ) -> bool:
        """Render what is missing and append it; returns whether nothing is missing any more, else memory does not do for one picture."""
        ladder = self._ladder
        try:
            # Model offload moves the weights, and what is moved in inference mode could never take part in a backward pass again.
            with torch.no_grad(), torch.inference_mode(not ladder.offloaded), applied(adapter, self.weights, self.device):
                states, blank = self._text_states(prompts, adapter)
                while (start := sum(map(len, chunks))) < len(prompts):
                    part = slice(start, start + ladder.batch)
                    images = attempt(self._batch, prompts[part], states[part], blank)
                    if images is not None:
                        chunks.append(images)
                        if tick:
                            tick(start + len(images))
                    elif not ladder.smaller(len(prompts[part])):
                        return False
        finally:
            ladder.settle()
        return True

    def _batch(self, prompts: Sequence[Prompt], states: Tensor, blank: Tensor) -> Images:
        generators = [torch.Generator().manual_seed(prompt.noise_seed) for prompt in prompts]
        floats = self.pipeline(
            prompt_embeds=states,
            negative_prompt_embeds=blank.expand(len(prompts), -1, -1),
            latents=self._noise(generators),
            generator=generators,
            num_inference_steps=self.settings.steps,
            guidance_scale=self.settings.guidance,
            height=self.settings.resolution,
            width=self.settings.resolution,
            output_type="pt",
        ).images
        # The decoder normalises, which makes NaN of an infinite latent too.
        broken = floats.isnan().flatten(1).any(dim=1).tolist()
        if any(broken):
            first = prompts[broken.index(True)]
            raise TrialError(
                f"{sum(broken)} of {len(prompts)} pictures hold NaN, the first is {first.text!r} with seed {first.seed}",
                remedy="lower the weights, or render in fp32",
            )
        images: Tensor = (floats.float() * 255).round().to(torch.uint8).cpu()
        return images

    def _noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Starting noise drawn in fp32 on the CPU, one generator a picture, so that neither batch, device nor dtype matter; a
        scheduler that adds noise at every step goes on drawing from the same generators."""
        noise = [torch.randn(self._latent, generator=generator) for generator in generators]
        return torch.stack(noise).to(self.device, self.pipeline.unet.dtype)

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) of a picture, in pixels."""
        _, height, width = self._latent
        factor: int = self.pipeline.vae_scale_factor
        return height * factor, width * factor

    def _latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of a latent."""
        config, factor, resolution = self.pipeline.unet.config, self.pipeline.vae_scale_factor, self.settings.resolution
        if resolution is None:
            side = config.sample_size
            height, width = (side, side) if isinstance(side, int) else side
            return config.in_channels, height, width
        multiple = max(8, factor)
        if resolution % multiple:
            remedy = f"use {max(1, round(resolution / multiple)) * multiple}"
            raise UsageError(f"the resolution {resolution} is not a multiple of {multiple}", remedy=remedy)
        return config.in_channels, resolution // factor, resolution // factor

    def _text_states(self, prompts: Sequence[Prompt], adapter: Adapter | None) -> tuple[Tensor, Tensor]:
        """Text states of the prompts, (n, tokens, width), and of the negative prompt, (1, tokens, width); those of the untouched
        text encoder are computed once per text."""
        touched = adapter is not None and any(path.startswith("text_encoder.") for path in adapter.modules)
        known = {} if touched else self._encoded
        texts = [self.settings.negative, *(p.text for p in prompts)]
        if missing := list(dict.fromkeys(text for text in texts if text not in known)):
            known.update(zip(missing, self._encode(missing).chunk(len(missing)), strict=True))
        states = torch.cat([known[text] for text in texts])
        return states[1:], states[:1]

    def _encode(self, texts: list[str]) -> Tensor:
        states, _ = self.pipeline.encode_prompt(texts, self.device, 1, do_classifier_free_guidance=False)
        encoded: Tensor = states
        return encoded
