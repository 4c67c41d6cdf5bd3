"""The renderer: a resident pipeline that turns prompts and a delta into pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from optimizer.adapters import Adapter, fit_shapes, weight_shapes
from optimizer.errors import TrialError, UsageError
from optimizer.rendering.candidates.branches import Branches
from optimizer.rendering.candidates.candidate import Candidate, changes
from optimizer.rendering.candidates.full_weights import live_tensors
from optimizer.rendering.candidates.in_place import InPlace, base_weights
from optimizer.rendering.families import TextStates, check_family, check_settings, drawing_of, family_of_pipeline, models_of
from optimizer.rendering.latents import latent_shape
from optimizer.rendering.memory.oom import Ladder, Note, attempt
from optimizer.rendering.memory.placement import Residence
from optimizer.rendering.prompt_encoding import any_special, encoded, length, matched
from optimizer.rendering.prompts import Prompt
from optimizer.rendering.schedulers import scheduler_named
from optimizer.rendering.settings import RenderSettings

Images = Tensor


class Renderer:
    """A resident pipeline of a known family.

    Args:
        pipeline: the loaded pipeline; its weights are changed only inside ``render`` and are restored bit for bit.
        settings: steps, guidance, batch size; what is not given is what is usual for the base.
        residence: where its models lie and candidates go; where not given, all of them where they are, and into their weights.
        note: is told, in one line, of every step that was taken because memory ran out.

    Attributes:
        device: where the denoiser computes; with offload it lies elsewhere in between.

    Raises:
        UsageError: the base cannot draw in this resolution, takes no negative prompt, or not this scheduler or layer of CLIP.
    """

    def __init__(
        self, pipeline: DiffusionPipeline, settings: RenderSettings, *, residence: Residence | None = None, note: Note | None = None
    ) -> None:
        self._family, drawing = family_of_pipeline(pipeline), drawing_of(pipeline)
        self.pipeline: Any = pipeline
        check_settings(self._family, settings)
        self.settings = settings.completed(drawing.steps, drawing.guidance)
        self._residence = residence or Residence(pipeline.components[self._family.denoiser].device, pipeline.dtype)
        self.device = self._residence.device
        self.weights = base_weights(pipeline)
        self._shapes = weight_shapes(models_of(pipeline))
        self._way = Branches(pipeline, self._shapes, self._residence.dtype) if self._residence.branch else self._in_place()
        self._skip = self._skipped_layers()
        if settings.scheduler:
            self.pipeline.scheduler = scheduler_named(settings.scheduler, self.pipeline.scheduler, self._family.name)
        self._latent = latent_shape(pipeline, settings.resolution)
        self._encoded: dict[str, TextStates] = {}
        self._ladder = Ladder(pipeline, settings.batch, self._residence, note)
        self._decoder: Any = None
        pipeline.set_progress_bar_config(disable=True)

    def _in_place(self) -> InPlace:
        return InPlace(self.weights, live_tensors(self.pipeline), self.device, pinned=self._residence.compiled)

    def drafting(self, decoder: nn.Module) -> Renderer:
        """The same renderer, with the same pipeline, whose pictures a tiny autoencoder decodes: faster, and a little off.

        Args:
            decoder: an ``AutoencoderTiny`` for the base's latents, where the denoiser computes.
        """
        other = copy(self)
        other._decoder = decoder
        return other

    @property
    def precision(self) -> str:
        """Kind of device and number format, e.g. ``cuda torch.float16``: pictures of another one differ in their last bits."""
        return " ".join([self.device.type, str(self._residence.dtype), *self._residence.marks])

    @property
    def plan(self) -> str:
        """Where the base's models lie in memory and why, in one line; empty where that was not planned."""
        return self._residence.plan

    def fitted(self, adapter: Adapter) -> Adapter:
        """The adapter in the shapes of the base's weights; raises BaseModelError where it is for another family or does not fit."""
        check_family(self._family, [adapter])
        return fit_shapes(adapter, self._shapes)

    def render(self, prompts: Sequence[Prompt], candidate: Candidate | None = None, *, tick: Callable[[int], None] | None = None) -> Images:
        """Render every prompt with its own noise.

        Where memory runs out, it goes on with a smaller batch, then with model offload, and so do all later calls.

        Args:
            prompts: what to render; prompt and seed determine the starting noise, whatever the batch.
            candidate: what to add to the base's weights, or weights to take in their place; None for the base alone.
            tick: called with the number of pictures finished so far.

        Returns:
            Pictures, uint8, (n, 3, height, width), on the CPU.

        Raises:
            BaseModelError: the candidate does not fit the base.
            TrialError: a picture is not a number, as happens when a delta is far too strong for the dtype; or memory does not do for a
                single one.
        """
        pictures: dict[int, Tensor] = {}
        while not attempt(self._continue, pictures, prompts, candidate, tick):
            self._ladder.relieve()
        return torch.stack([pictures[i] for i in range(len(prompts))])

    def _continue(
        self, pictures: dict[int, Tensor], prompts: Sequence[Prompt], candidate: Candidate | None, tick: Callable[[int], None] | None
    ) -> bool:
        """Render the pictures of the prompts that are missing; returns whether all are there, else memory does not do for one of them."""
        ladder = self._ladder
        try:
            # Model offload moves the weights, and what is moved in inference mode could never take part in a backward pass again.
            with torch.no_grad(), torch.inference_mode(not ladder.offloaded), self._way.applied(candidate):
                states, blanks = self._text_states(prompts, candidate)
                while missing := [i for i in range(len(prompts)) if i not in pictures]:
                    some = self._next(missing, states)
                    texts, nots = _stacked([states[i] for i in some]), _stacked([blanks[i] for i in some])
                    images = attempt(self._batch, [prompts[i] for i in some], texts, nots)
                    if images is not None:
                        pictures |= dict(zip(dict.fromkeys(some), images, strict=False))
                        if tick:
                            tick(len(pictures))
                    elif not ladder.smaller(len(some)):
                        return False
        finally:
            ladder.settle()
        return True

    def _next(self, missing: Sequence[int], states: Sequence[TextStates]) -> list[int]:
        """Positions of the next batch: the first one that is missing, and as many as there is room for whose texts are as long. A compiled
        model would be compiled anew for another size of a batch: one that is not full is filled up with its last prompt."""
        batch = self._ladder.batch
        alike = [i for i in missing if length(states[i]) == length(states[missing[0]])][:batch]
        full = min(batch, len(states)) if self._residence.compiled else 0
        return [*alike, *[alike[-1]] * (full - len(alike))]

    def _batch(self, prompts: Sequence[Prompt], states: TextStates, blanks: TextStates) -> Images:
        floats = self._drawn(prompts, states, blanks)
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

    def _drawn(self, prompts: Sequence[Prompt], states: TextStates, blanks: TextStates) -> Tensor:
        """Pictures of one batch, (n, 3, height, width), of numbers from 0 to 1."""
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
        """Starting noise drawn in fp32 on the CPU, one generator a picture, so that neither batch, device nor dtype matter; a
        scheduler that adds noise at every step goes on drawing from the same generators."""
        noise = torch.stack([torch.randn(self._latent, generator=generator) for generator in generators])
        if self._family.packed:
            noise = self.pipeline._pack_latents(noise, *noise.shape)
        return noise.to(self.device, self._residence.dtype)

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) of a picture, in pixels."""
        _, height, width = self._latent
        factor: int = self.pipeline.vae_scale_factor
        return height * factor, width * factor

    def _skipped_layers(self) -> int | None:
        """How many layers of CLIP diffusers is to skip beyond what it does by itself."""
        asked = self.settings.clip_skip
        if asked is None:
            return None
        encoders = (self.pipeline.components.get(part) for part in ("text_encoder", "text_encoder_2"))
        layers = min(encoder.config.num_hidden_layers for encoder in encoders if encoder is not None)
        if asked > layers + 1:  # beyond all layers are the embeddings, and beyond those nothing
            problem = f"there is no layer {asked}: CLIP has {layers} here"
            raise UsageError(problem, where="--clip-skip", remedy=f"give {layers} or less; 2 is usual")
        return asked - self._family.layer or None

    def special(self, prompts: Sequence[Prompt]) -> bool:
        """Whether one of the texts, or the negative prompt, has weights or is longer than CLIP reads at once.

        Raises:
            UsageError: one is longer than T5 reads, of which it would see the beginning alone.
        """
        return any_special(self._family, self.pipeline, [self.settings.negative, *(p.text for p in prompts)])

    def _text_states(self, prompts: Sequence[Prompt], candidate: Candidate | None) -> tuple[list[TextStates], list[TextStates]]:
        """What the pipeline is called with for every prompt, and for the negative one beside it, of one row each; that of untouched text
        encoders is computed once per text. How long the rows are depends on these two texts alone, so that other prompts change no
        picture."""
        known = {} if changes(candidate, "text_encoder") else self._encoded

        def of(*texts: str) -> list[TextStates]:
            if missing := list(dict.fromkeys(text for text in texts if text not in known)):
                known.update(encoded(self._family, self.pipeline, missing, self.device, self._skip))
            return [known[text] for text in texts]

        negative = [self.settings.negative] if self._family.negates else []
        found = of(*negative, *(p.text for p in prompts))
        blank, chunk = found[0] if negative else {}, self.pipeline.tokenizer.model_max_length
        pairs = [matched(one, blank, lambda: of("")[0], chunk) for one in found[len(negative) :]]
        return [states for states, _ in pairs], [self._blank(one) for _, one in pairs]

    def _blank(self, negative: TextStates) -> TextStates:
        """Of the negative prompt; where there is none, zeros, if the base was trained so."""
        if self.settings.negative or not self.pipeline.config.get("force_zeros_for_empty_prompt"):
            return negative
        return {name: torch.zeros_like(rows) for name, rows in negative.items()}


def _stacked(states: Sequence[Mapping[str, Tensor]]) -> TextStates:
    return {name: torch.cat([one[name] for one in states]) for name in states[0]}


@contextmanager
def _decoded_by(decoder: nn.Module | None, pipeline: Any) -> Iterator[None]:
    """Within the block the pipeline decodes with another autoencoder, if there is one."""
    own = pipeline.vae
    try:
        pipeline.vae = decoder or own
        yield
    finally:
        pipeline.vae = own
