"""Conversions: diffusers' functions from the original layout to its own, for the parts of a pipeline that merge."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_open_clip_checkpoint,
    convert_sd3_t5_checkpoint_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)

from optimizer.checkpoints.header import COUNTS

State = dict[str, Any]
Convert = Callable[[State, str], State]
"""Of the tensors of one part, which it may empty, and what their names begin with."""

PROJECTION = "text_projection.weight"

_DENOISER = "model.diffusion_model."
_OTHERS = ("first_stage_model.", "vae.", "cond_stage_model.", "conditioner.", "text_encoders.", "model_ema.")
_TEXT = ("embeddings.token_embedding.", "embeddings.position_embedding.", "encoder.", "final_layer_norm.", "shared.")


@dataclass(frozen=True)
class Part:
    """A part of a pipeline in a file.

    Attributes:
        convert: diffusers' conversion.
        start: of the names of its tensors there.
        whole: it is the denoiser, of which every tensor is read; text encoders have others beside those that diffusers reads.
        projects: it ends in a projection.
        identity: that is the identity where the file has none.
    """

    convert: Convert
    start: str = _DENOISER
    whole: bool = False
    projects: bool = False
    identity: bool = False

    def names(self, every: Collection[str]) -> list[str]:
        """Its tensors among all of a file; files with the denoiser alone may leave out what its names begin with."""
        found = [name for name in every if name.startswith(self.start)]
        if self.whole and not found:
            found = [name for name in every if not name.startswith(_OTHERS)]
        return [name for name in found if not name.endswith(COUNTS)]

    def reads(self, name: str) -> bool:
        """Whether a tensor that was converted belongs to the model, by its canonical name."""
        return self.whole or name.startswith(_TEXT) or (self.projects and name == PROJECTION)


def _unet(tensors: State, start: str) -> State:
    """The number of layers in a block shows in where the first of those is that halve the picture."""
    halving = (int(name.split(".")[-4]) for name in tensors if name.endswith(".0.op.weight"))
    config: dict[str, Any] = {"layers_per_block": min(halving, default=3) - 1}
    if f"{start}label_emb.0.0.weight" in tensors:
        config["addition_embed_type"] = "text_time"
    found: State = convert_ldm_unet_checkpoint(tensors, config)
    return found


def _sd3(tensors: State, _: str) -> State:
    found: State = convert_sd3_transformer_checkpoint_to_diffusers(tensors)
    return found


def _flux(tensors: State, _: str) -> State:
    found: State = convert_flux_transformer_checkpoint_to_diffusers(tensors)
    return found


def _clip(tensors: State, start: str) -> State:
    found: State = convert_ldm_clip_checkpoint(tensors, start)
    return found


def _open_clip(tensors: State, start: str) -> State:
    """Where it has no projection, diffusers asks the model how wide queries, keys and values are."""
    width = next((len(tensor) for name, tensor in tensors.items() if name.endswith("ln_final.bias")), 0)
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=width))
    found: State = convert_open_clip_checkpoint(model, tensors, prefix=start)
    return found


def _t5(tensors: State, _: str) -> State:
    found: State = convert_sd3_t5_checkpoint_to_diffusers(tensors)
    return found


_UNET = (Part(_unet, whole=True),)
_L, _G, _XXL = (f"text_encoders.{name}.transformer." for name in ("clip_l", "clip_g", "t5xxl"))
PARTS: Mapping[str, Mapping[str, tuple[Part, ...]]] = {
    "StableDiffusionPipeline": {
        "unet": _UNET,
        "text_encoder": (Part(_clip, "cond_stage_model.transformer."), Part(_open_clip, "cond_stage_model.model.")),
    },
    "StableDiffusionXLPipeline": {
        "unet": _UNET,
        "text_encoder": (Part(_clip, "conditioner.embedders.0.transformer."),),
        "text_encoder_2": (Part(_open_clip, "conditioner.embedders.1.model.", projects=True),),
    },
    "StableDiffusion3Pipeline": {
        "transformer": (Part(_sd3, whole=True),),
        "text_encoder": (Part(_clip, _L, projects=True, identity=True),),
        "text_encoder_2": (Part(_clip, _G, projects=True),),
        "text_encoder_3": (Part(_t5, _XXL),),
    },
    "FluxPipeline": {
        "transformer": (Part(_flux, whole=True),),
        "text_encoder": (Part(_clip, _L),),
        "text_encoder_2": (Part(_t5, _XXL),),
    },
}
"""diffusers' class of a pipeline → part → where it may lie in a file, and how it is converted."""
