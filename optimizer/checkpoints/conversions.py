"""Conversions: diffusers' functions from the original state dict layout to its own, for the merged parts of a pipeline."""

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
"""Converts the state dict of one part, given its key prefix; it may empty the input dict."""

PROJECTION = "text_projection.weight"

_DENOISER = "model.diffusion_model."
_OTHERS = ("first_stage_model.", "vae.", "cond_stage_model.", "conditioner.", "text_encoders.", "model_ema.")
_TEXT = ("embeddings.token_embedding.", "embeddings.position_embedding.", "encoder.", "final_layer_norm.", "shared.")


@dataclass(frozen=True)
class Part:
    """A pipeline part in a single file.

    Attributes:
        convert: diffusers' conversion function.
        start: key prefix of the part in the file.
        whole: whether every tensor must be read, as for the denoiser; text encoders have tensors that diffusers does not read.
        projects: whether the part ends in a projection.
        identity: whether a projection that is missing in the file is the identity.
    """

    convert: Convert
    start: str = _DENOISER
    whole: bool = False
    projects: bool = False
    identity: bool = False

    def names(self, every: Collection[str]) -> list[str]:
        """Returns the keys of the part among all keys of a file; a file with only the denoiser may lack its key prefix."""
        found = [name for name in every if name.startswith(self.start)]
        if self.whole and not found:
            found = [name for name in every if not name.startswith(_OTHERS)]
        return [name for name in found if not name.endswith(COUNTS)]

    def reads(self, name: str) -> bool:
        """Returns whether a converted tensor belongs to the part, by its canonical name."""
        return self.whole or name.startswith(_TEXT) or (self.projects and name == PROJECTION)


def _unet(tensors: State, start: str) -> State:
    """Returns the converted U-Net; the index of the first downsampling block determines the layers per block."""
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
    """Returns the converted OpenCLIP encoder; without a projection, diffusers reads the hidden size from the model's config."""
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
"""diffusers pipeline class → part → possible locations in a file, each with its conversion."""
