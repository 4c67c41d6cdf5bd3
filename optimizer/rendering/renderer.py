"""The renderer: a resident pipeline that turns prompts and a delta into pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from torch import Tensor

from optimizer.adapters import Adapter, fit_shapes
from optimizer.errors import BaseModelError, TrialError
from optimizer.rendering.live import applied, base_weights
from optimizer.rendering.prompts import Prompt

Images = Tensor


@dataclass(frozen=True)
class RenderSettings:
    """How pictures are made.

    Attributes:
        steps: denoising steps.
        guidance: classifier-free guidance scale; 1 turns it off.
        negative: negative prompt.
        batch: pictures per forward pass.
        resolution: width and height in pixels; None takes the base's own.
    """

    steps: int = 20
    guidance: float = 7.0
    negative: str = ""
    batch: int = 8
    resolution: int | None = None


class Renderer:
    """A resident Stable Diffusion pipeline.

    Args:
        pipeline: the loaded pipeline; its weights are changed only inside ``render`` and are restored bit for bit.
        settings: steps, guidance, batch size.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, settings: RenderSettings) -> None:
        self.pipeline, self.settings = pipeline, settings
        self.weights = base_weights(pipeline)
        self._encoded: dict[str, Tensor] = {}
        pipeline.set_progress_bar_config(disable=True)

    @property
    def device(self) -> torch.device:
        """Where the denoiser lives."""
        device: torch.device = self.pipeline.unet.device
        return device

    def fitted(self, adapter: Adapter) -> Adapter:
        """The adapter in the shapes of the base's weights; raises BaseModelError where a module is not in the base or differs."""
        return fit_shapes(adapter, {path: tuple(weight.shape) for path, weight in self.weights.items()})

    @torch.inference_mode()
    def render(self, prompts: Sequence[Prompt], adapter: Adapter | None = None, *, tick: Callable[[int], None] | None = None) -> Images:
        """Render every prompt with its own noise.

        Args:
            prompts: what to render; prompt and seed determine the starting noise, whatever the batch.
            adapter: what to add to the base's weights, or None for the base alone.
            tick: called with the number of pictures finished so far.

        Returns:
            Pictures, uint8, (n, 3, height, width), on the CPU.

        Raises:
            BaseModelError: the adapter does not fit the base.
            TrialError: the pictures hold NaN, as they do when a delta is far too strong for the dtype.
        """
        chunks: list[Tensor] = []
        with applied(adapter, self.weights):
            states, blank = self._text_states(prompts, adapter)
            for start in range(0, len(prompts), self.settings.batch):
                part = slice(start, start + self.settings.batch)
                chunks.append(self._batch(prompts[part], states[part], blank))
                if tick:
                    tick(min(start + self.settings.batch, len(prompts)))
        return torch.cat(chunks)

    def _batch(self, prompts: Sequence[Prompt], states: Tensor, blank: Tensor) -> Images:
        floats = self.pipeline(
            prompt_embeds=states,
            negative_prompt_embeds=blank.expand(len(prompts), -1, -1),
            latents=self._noise(prompts),
            num_inference_steps=self.settings.steps,
            guidance_scale=self.settings.guidance,
            height=self.settings.resolution,
            width=self.settings.resolution,
            output_type="pt",
        ).images
        if not bool(torch.isfinite(floats).all()):
            raise TrialError("the pictures hold NaN or infinite values", remedy="lower the weights, or render in fp32")
        images: Tensor = (floats.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        return images

    def _noise(self, prompts: Sequence[Prompt]) -> Tensor:
        """Starting noise drawn on the CPU, one generator a prompt, so that batch and device do not matter."""
        pipe = self.pipeline
        side = (self.settings.resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor) // pipe.vae_scale_factor
        shape = (1, pipe.unet.config.in_channels, side, side)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(p.noise_seed)) for p in prompts]
        return torch.cat(noise).to(self.device, pipe.unet.dtype)

    def _text_states(self, prompts: Sequence[Prompt], adapter: Adapter | None) -> tuple[Tensor, Tensor]:
        """Text states of the prompts, (n, tokens, width), and of the negative prompt, (1, tokens, width); those of the untouched
        text encoder are computed once per text."""
        texts = [self.settings.negative, *(p.text for p in prompts)]
        if adapter is not None and any(path.startswith("text_encoder") for path in adapter.modules):
            states = self._encode(texts)
        else:
            missing = list(dict.fromkeys(t for t in texts if t not in self._encoded))
            if missing:
                self._encoded.update(zip(missing, self._encode(missing).split(1), strict=True))
            states = torch.cat([self._encoded[t] for t in texts])
        return states[1:], states[:1]

    def _encode(self, texts: list[str]) -> Tensor:
        states, _ = self.pipeline.encode_prompt(texts, self.device, 1, do_classifier_free_guidance=False)
        encoded: Tensor = states
        return encoded


def load_pipeline(base: str | Path, *, device: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    """Load a diffusers pipeline directory.

    Raises:
        BaseModelError: nothing there, or not a Stable Diffusion 1.x/2.x pipeline.
    """
    folder = Path(base)
    if not (folder / "model_index.json").is_file():
        raise BaseModelError(
            "no diffusers pipeline here (model_index.json is missing)", where=base, remedy="give the folder of a diffusers pipeline"
        )
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BaseModelError(f"the pipeline cannot be loaded: {error}", where=base, remedy="check that the folder is complete") from error
    if not isinstance(pipeline, StableDiffusionPipeline):
        raise BaseModelError(
            f"{type(pipeline).__name__} is not supported", where=base, remedy="use a StableDiffusionPipeline (SD 1.x or 2.x)"
        )
    return pipeline.to(device)
