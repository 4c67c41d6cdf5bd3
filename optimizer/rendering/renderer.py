"""Renderer: a loaded pipeline that renders images from prompts and a candidate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from optimizer.adapters import Adapter, fit_shapes, weight_shapes
from optimizer.errors import TrialError, UsageError
from optimizer.rendering.candidates.branches import Branches
from optimizer.rendering.candidates.candidate import Candidate, LiveCandidate, changes
from optimizer.rendering.candidates.full_weights import live_tensors
from optimizer.rendering.candidates.in_place import InPlace, base_weights
from optimizer.rendering.latents import latent_shape
from optimizer.rendering.memory.oom import MemoryFallback, Note, attempt
from optimizer.rendering.memory.placement import Placement
from optimizer.rendering.pipeline_class import check_family, check_settings, drawing_of, models_of, pipeline_class_of
from optimizer.rendering.prompt_encoding import any_special, encode_texts, length, pad_states
from optimizer.rendering.prompts import Prompt
from optimizer.rendering.schedulers import denoiser_calls, scheduler_named
from optimizer.rendering.settings import RenderSettings
from optimizer.rendering.text.states import EncodedPrompts, TextStates

Images = Tensor


class Renderer:
    """Renderer of a loaded pipeline of a known family.

    Args:
        pipeline: loaded pipeline; its weights are changed only inside ``render`` and are restored bit for bit.
        settings: render settings; missing values default to those of the base.
        placement: placement of models and candidates; None leaves the models in place and adds candidates to the weights.
        note: called with one line for each fallback step after running out of memory.
        standing: change that stays in the branches beside every candidate, in the shapes of the weights; None for none. A placement without
            branches ignores it.

    Attributes:
        device: device of the denoiser while it computes; with offload it is stored elsewhere between calls.

    Raises:
        UsageError: the base does not support the resolution, a negative prompt, the scheduler or the CLIP layer.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        settings: RenderSettings,
        *,
        placement: Placement | None = None,
        note: Note | None = None,
        standing: Adapter | None = None,
    ) -> None:
        self._record, drawing = pipeline_class_of(pipeline), drawing_of(pipeline)
        self.pipeline: Any = pipeline
        check_settings(self._record, settings)
        self.settings = settings.completed(drawing.steps, drawing.guidance)
        self._placement = placement or Placement(pipeline.components[self._record.denoiser].device, pipeline.dtype)
        self.device = self._placement.device
        self.weights = base_weights(pipeline)
        self._shapes = weight_shapes(models_of(pipeline))
        self._way = self._branches(standing) if self._placement.branch else self._in_place()
        self._skip = self._skipped_layers()
        if settings.scheduler:
            self.pipeline.scheduler = scheduler_named(settings.scheduler, self.pipeline.scheduler, self._record.title)
        self._latent = latent_shape(pipeline, settings.resolution)
        self._encoded: dict[str, TextStates] = {}
        self._fallback = MemoryFallback(pipeline, settings.batch, self._placement, note)
        self._decoder: Any = None
        pipeline.set_progress_bar_config(disable=True)

    def _branches(self, standing: Adapter | None) -> Branches:
        return Branches(self.pipeline, self._shapes, self._placement.dtype, standing)

    def _in_place(self) -> InPlace:
        return InPlace(self.weights, live_tensors(self.pipeline), self.device, pinned=self._placement.compiled)

    def with_decoder(self, decoder: nn.Module) -> Renderer:
        """Returns a copy of the renderer that shares the pipeline and decodes with a tiny autoencoder: faster and slightly less exact.

        Args:
            decoder: ``AutoencoderTiny`` for the base's latents, on the device of the denoiser.
        """
        other = copy(self)
        other._decoder = decoder
        return other

    def with_steps(self, most: int) -> Renderer:
        """Returns a copy of the renderer that shares the pipeline and draws with at most so many sampling steps.

        Args:
            most: greatest number of sampling steps, ≥ 1; fewer stay as they are.
        """
        assert self.settings.steps is not None
        other = copy(self)
        other.settings = replace(self.settings, steps=min(self.settings.steps, most))
        return other

    @property
    def precision(self) -> str:
        """Device type and dtype, e.g. ``cuda torch.float16``; images of different ones differ in their last bits."""
        return " ".join([self.device.type, str(self._placement.dtype), *self._placement.marks])

    @property
    def dtype(self) -> torch.dtype:
        """Dtype that the models compute in."""
        return self._placement.dtype

    @property
    def plan(self) -> str:
        """One-line description of the memory placement of the base's models; empty if it was not planned."""
        return self._placement.plan

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Canonical module path → shape of its weight, of all modules that an adapter may change."""
        return self._shapes

    @property
    def offloaded(self) -> bool:
        """Whether models that are idle are stored in the computer's memory."""
        return self._fallback.offloaded

    def offload_idle(self, keep: Sequence[str] = ()) -> bool:
        """Stores models that are idle in the computer's memory from now on, as drawing does after it ran out of memory.

        It must be called outside inference mode.

        Args:
            keep: names of components that stay on the device, because something reads them after they have computed.

        Returns:
            Whether models were moved: False if that was done before, or if the device is not a GPU or the model is compiled.
        """
        return self._fallback.offload_idle(keep)

    def keep(self, components: Sequence[str]) -> None:
        """Has components stay on the device from now on, even if idle models are offloaded. It must be called outside inference mode.

        Args:
            components: names of components that something reads after they have computed.
        """
        self._fallback.keep(components)

    def fit_adapter(self, adapter: Adapter) -> Adapter:
        """Returns the adapter in the shapes of the base's weights; raises BaseModelError for another family or other shapes."""
        check_family(self._record, [adapter])
        return fit_shapes(adapter, self._shapes)

    def render(self, prompts: Sequence[Prompt], candidate: Candidate | None = None, *, tick: Callable[[int], None] | None = None) -> Images:
        """Renders every prompt with its own noise.

        After running out of memory, rendering continues with a smaller batch, then with offload; later calls keep these settings.

        Args:
            prompts: prompts to render; text and seed determine the initial noise, independently of the batch.
            candidate: adapter to add to the base's weights, or weights that replace them; None for the base alone.
            tick: called with the number of images finished so far.

        Returns:
            Images, uint8, (n, 3, height, width), on the CPU.

        Raises:
            BaseModelError: the candidate does not fit the base.
            TrialError: an image contains NaN, for instance if ΔW is too large for the dtype; or memory does not suffice for a single
                image.
        """
        pictures: dict[int, Tensor] = {}
        while not attempt(self._continue, pictures, prompts, candidate, tick):
            self._fallback.relieve()
        return torch.stack([pictures[i] for i in range(len(prompts))])

    def _continue(
        self, pictures: dict[int, Tensor], prompts: Sequence[Prompt], candidate: Candidate | None, tick: Callable[[int], None] | None
    ) -> bool:
        """Renders the missing images; returns False if memory does not suffice for a single image, else True."""
        fallback = self._fallback
        try:
            # Model offload moves the weights; tensors moved in inference mode cannot take part in a backward pass later.
            with torch.no_grad(), torch.inference_mode(not fallback.offloaded), self._applied(candidate):
                states, blanks = self._encode(prompts, candidate)
                while missing := [i for i in range(len(prompts)) if i not in pictures]:
                    some = self._next(missing, states)
                    if isinstance(candidate, LiveCandidate):
                        candidate.begin(some)
                    texts, nots = _stack([states[i] for i in some]), _stack([blanks[i] for i in some])
                    images = attempt(self._batch, [prompts[i] for i in some], texts, nots)
                    if images is not None:
                        pictures |= dict(zip(dict.fromkeys(some), images, strict=False))
                        if tick:
                            tick(len(pictures))
                    elif not fallback.smaller(len(some)):
                        return False
        finally:
            fallback.settle()
        return True

    def _applied(self, candidate: Candidate | None) -> AbstractContextManager[None]:
        return candidate.applied() if isinstance(candidate, LiveCandidate) else self._way.applied(candidate)

    def _encode(self, prompts: Sequence[Prompt], candidate: Candidate | None) -> EncodedPrompts:
        if not isinstance(candidate, LiveCandidate):
            return self.encoded(prompts, {} if changes(candidate, "text_encoder") else self._encoded)
        return candidate.encode(prompts, lambda: self.encoded(prompts, {}))

    def _next(self, missing: Sequence[int], states: Sequence[TextStates]) -> list[int]:
        """Returns the prompt indices of the next batch: the first missing one, and further ones with text states of equal length.

        For a compiled model, a batch that is not full is padded with its last prompt, to avoid recompilation for another batch size.
        """
        batch = self._fallback.batch
        alike = [i for i in missing if length(states[i]) == length(states[missing[0]])][:batch]
        full = min(batch, len(states)) if self._placement.compiled else 0
        return [*alike, *[alike[-1]] * (full - len(alike))]

    def _batch(self, prompts: Sequence[Prompt], states: TextStates, blanks: TextStates) -> Images:
        floats = self._draw(prompts, states, blanks)
        # The decoder normalises, so infinite latents also give NaN.
        broken = floats.isnan().flatten(1).any(dim=1).tolist()
        if any(broken):
            first = prompts[broken.index(True)]
            raise TrialError(
                f"{sum(broken)} of {len(prompts)} pictures hold NaN, the first is {first.text!r} with seed {first.seed}",
                remedy="lower the weights, or render in fp32",
            )
        images: Tensor = (floats.float() * 255).round().to(torch.uint8).cpu()
        return images

    def _draw(self, prompts: Sequence[Prompt], states: TextStates, blanks: TextStates) -> Tensor:
        """Returns the images of one batch, (n, 3, height, width), values in [0, 1]."""
        generators = [torch.Generator().manual_seed(prompt.noise_seed) for prompt in prompts]
        height, width = self.picture_size
        with _decoded_by(self._decoder, self.pipeline):
            floats: Tensor = self.pipeline(
                **states,
                **{f"negative_{name}": rows for name, rows in blanks.items()},
                latents=self._noise(generators),
                generator=generators,
                num_inference_steps=self.settings.steps,
                guidance_scale=self.settings.guidance,
                height=height,
                width=width,
                output_type="pt",
            ).images
        return floats

    def _noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Returns the initial noise, drawn in fp32 on the CPU with one generator per image.

        The noise does not depend on batch, device or dtype. Schedulers that add noise at every step continue with these generators.
        """
        noise = torch.stack([torch.randn(self._latent, generator=generator) for generator in generators])
        if self._record.packed:
            noise = self.pipeline._pack_latents(noise, *noise.shape)
        return noise.to(self.device, self._placement.dtype)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Image size (height, width), in pixels."""
        _, height, width = self._latent
        factor: int = self.pipeline.vae_scale_factor
        return height * factor, width * factor

    @property
    def latent_size(self) -> int:
        """Number of values of one image's latents."""
        return math.prod(self._latent)

    @property
    def calls(self) -> int:
        """Number of calls of the denoiser while an image is drawn."""
        assert self.settings.steps is not None
        return denoiser_calls(self.pipeline.scheduler, self.settings.steps)

    def _skipped_layers(self) -> int | None:
        """Returns the number of CLIP layers that diffusers skips in addition to its default; None for the default."""
        asked = self.settings.clip_skip
        if asked is None:
            return None
        encoders = (self.pipeline.components.get(part) for part in ("text_encoder", "text_encoder_2"))
        layers = min(encoder.config.num_hidden_layers for encoder in encoders if encoder is not None)
        if asked > layers + 1:  # layers + 1 selects the embeddings, the last possible state
            problem = f"there is no layer {asked}: CLIP has {layers} here"
            raise UsageError(problem, where="--clip-skip", remedy=f"give {layers} or less; 2 is usual")
        return asked - self._record.clip_layer or None

    def special(self, prompts: Sequence[Prompt]) -> bool:
        """Returns whether any text, or the negative prompt, has weights or exceeds CLIP's context.

        Raises:
            UsageError: a text is longer than T5's limit and would be truncated.
        """
        return any_special(self._record, self.pipeline, [self.settings.negative, *(p.text for p in prompts)])

    def encoded(self, prompts: Sequence[Prompt], known: dict[str, TextStates] | None = None) -> EncodedPrompts:
        """Returns the text-encoder states for every prompt, and those of the negative prompt padded to match, one row each.

        The length of a row depends only on the prompt and the negative prompt, so other prompts do not affect an image.

        Args:
            prompts: prompts whose texts are encoded by the text encoders as they are at the moment of the call.
            known: states that are known already, by text; those that are encoded are added.
        """
        known = {} if known is None else known

        def of(*texts: str) -> list[TextStates]:
            if missing := list(dict.fromkeys(text for text in texts if text not in known)):
                known.update(encode_texts(self._record, self.pipeline, missing, self.device, self._skip))
            return [known[text] for text in texts]

        negative = [self.settings.negative] if self._record.negates else []
        found = of(*negative, *(p.text for p in prompts))
        blank, chunk = found[0] if negative else {}, self.pipeline.tokenizer.model_max_length
        pairs = [pad_states(one, blank, lambda: of("")[0], chunk) for one in found[len(negative) :]]
        return [states for states, _ in pairs], [self._blank(one) for _, one in pairs]

    def _blank(self, negative: TextStates) -> TextStates:
        """Returns the states of the negative prompt; zeros if it is empty and the base was trained with zeros."""
        if self.settings.negative or not self.pipeline.config.get("force_zeros_for_empty_prompt"):
            return negative
        return {name: torch.zeros_like(rows) for name, rows in negative.items()}


def _stack(states: Sequence[Mapping[str, Tensor]]) -> TextStates:
    return {name: torch.cat([one[name] for one in states]) for name in states[0]}


@contextmanager
def _decoded_by(decoder: nn.Module | None, pipeline: Any) -> Iterator[None]:
    """Context in which the pipeline decodes with another autoencoder; None keeps its own."""
    own = pipeline.vae
    try:
        pipeline.vae = decoder or own
        yield
    finally:
        pipeline.vae = own
