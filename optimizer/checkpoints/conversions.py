"""Conversions: diffusers' functions from the original state dict layout to its own, by the names in the records of the families."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
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

from optimizer.adapters.families import FilePart
from optimizer.checkpoints.header import COUNTS

State = dict[str, Any]
Convert = Callable[[State, str], State]
"""Converts the state dict of one part, given its key prefix; it may empty the input dict."""

PROJECTION = "text_projection.weight"

_OTHERS = ("first_stage_model.", "vae.", "cond_stage_model.", "conditioner.", "text_encoders.", "model_ema.")
_TEXT = ("embeddings.token_embedding.", "embeddings.position_embedding.", "encoder.", "final_layer_norm.", "shared.")


def part_keys(part: FilePart, keys: Collection[str]) -> list[str]:
    """Returns the keys of a part among all keys of a file; a file with only the denoiser may lack its key prefix."""
    found = [key for key in keys if key.startswith(part.start)]
    if part.whole and not found:
        found = [key for key in keys if not key.startswith(_OTHERS)]
    return [key for key in found if not key.endswith(COUNTS)]


def belongs_to(part: FilePart, name: str) -> bool:
    """Returns whether a converted tensor belongs to a part, by its canonical name."""
    return part.whole or name.startswith(_TEXT) or (part.projects and name == PROJECTION)


def conversion_named(name: str) -> Convert:
    """Returns the conversion that a family's record names, imported if the name is ``module:function``."""
    if name in CONVERSIONS:
        return CONVERSIONS[name]
    module, _, function = name.partition(":")
    found: Convert = getattr(import_module(module), function)
    return found


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


CONVERSIONS: Mapping[str, Convert] = {
    "unet": _unet,
    "sd3": _sd3,
    "flux": _flux,
    "clip": _clip,
    "open_clip": _open_clip,
    "t5": _t5,
}
"""Name in ``FilePart.conversion`` → conversion."""
