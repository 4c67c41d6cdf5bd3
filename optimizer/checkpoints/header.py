"""What a safetensors file tells before a weight is read: names, shapes, number formats, and what it is taken for by mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from safetensors import SafetensorError, safe_open
from torch import Tensor

from optimizer.errors import BaseModelError
from optimizer.text import first_sentence

WHOLE = ("F16", "BF16", "F32", "F64")
EIGHT = ("F8_E4M3", "F8_E5M2")
"""Number formats of eight bits that mean what they say, unless a scale lies beside them."""

COUNTS = ("position_ids", "logit_scale", "num_batches_tracked", "num_updates", "v_pred", "ztsnr")
"""What the names of tensors end in that are no weights: positions, counts, and the marks of models that predict velocities."""

# What the scale of eight-bit weights is called by ComfyUI, by compressed-tensors and by bitsandbytes.
_SCALES = ("scale_weight", "scale_input", "weight_scale", "input_scale", "scaled_fp8", "comfy_quant", ".SCB", "absmax")
_ADAPTERS = ("lora", "hada_", "lokr_", "oft_blocks", "dora_scale")
_REMEDY = "use the fp16, bf16 or fp32 version of it, or of a denoiser a GGUF file with --denoiser"
_AUTOENCODER = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


@dataclass(frozen=True)
class Header:
    """Of a safetensors file.

    Attributes:
        tensors: by name, without their numbers.
        formats: number format of each, as safetensors calls it.
        metadata: what the writer of the file said of it.
    """

    tensors: Mapping[str, Tensor]
    formats: Mapping[str, str]
    metadata: Mapping[str, str]

    @property
    def adapter(self) -> bool:
        """Whether it is a LoRA, or one of its kind."""
        return any(mark in name.lower() for name in self.tensors for mark in _ADAPTERS)

    @property
    def mistaken(self) -> str:
        """What the file is, where it is one that people take for a model; else empty."""
        if self.adapter:
            return "a LoRA, not a base model"
        if self.tensors and all(name.startswith(_AUTOENCODER) for name in self.tensors):
            return "an autoencoder alone, which is for --vae"
        return ""

    @property
    def model(self) -> str:
        """What diffusers calls the kind of model; empty where it stumbles over it, ``v1`` where it recognises nothing."""
        try:
            kind: str = infer_diffusers_model_type(dict(self.tensors))
        except Exception:  # of models that it half knows it takes tensors and shapes for granted
            return ""
        return kind


def read_header(file: Path, formats: Sequence[str] = WHOLE, *, remedy: str = _REMEDY) -> Header:
    """The header of a file of weights.

    Args:
        file: to read; its end tells that it is no pickle, which is never opened.
        formats: number formats that the weights may have.
        remedy: what to do about weights of another format.

    Raises:
        BaseModelError: it is no complete safetensors file, or a weight has another format, or needs a scale to be read.
    """
    if file.suffix != ".safetensors":  # spelt so: diffusers opens others, .SAFETENSORS too, as pickles
        remedy = "use a .safetensors file; others can run code when they are opened"
        raise BaseModelError(f"{file.suffix or 'a file without an ending'} is not read", where=file, remedy=remedy)
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            kinds = {name: part.get_dtype() for name, part in slices.items()}
            tensors = {name: torch.empty(part.get_shape(), device="meta") for name, part in slices.items()}
            metadata = dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        problem = f"cannot be read, or was not downloaded to its end ({first_sentence(error)})"
        raise BaseModelError(problem, where=file, remedy="fetch the file again") from error
    _check_formats(file, kinds, formats, remedy)
    return Header(tensors, kinds, metadata)


def _check_formats(file: Path, kinds: Mapping[str, str], formats: Sequence[str], remedy: str) -> None:
    few = {name: kind for name, kind in kinds.items() if kind not in WHOLE and not name.endswith(COUNTS)}
    if few and (scale := next((name for name in kinds if name.endswith(_SCALES)), None)):
        raise BaseModelError(f"its weights are stored in few bits with a scale ({scale}), which is not read", where=file, remedy=remedy)
    odd = next((name for name, kind in few.items() if kind not in formats), None)
    if odd is not None:
        raise BaseModelError(f"{odd} is stored as {kinds[odd]}, which is not read", where=file, remedy=remedy)
