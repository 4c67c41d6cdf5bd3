"""Reads the header of a safetensors checkpoint: keys, shapes and dtypes; detects files that are not base models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from safetensors import SafetensorError, safe_open
from torch import Tensor

from optimizer.adapters.files.dtypes import FLOATS
from optimizer.errors import BaseModelError
from optimizer.text import first_sentence

COUNTS = ("position_ids", "logit_scale", "num_batches_tracked", "num_updates", "v_pred", "ztsnr")
"""Key suffixes of tensors that are not weights: positions, counts, and markers of models with v-prediction."""

# Key suffixes of the scales of 8-bit weights in ComfyUI, compressed-tensors and bitsandbytes.
_SCALES = ("scale_weight", "scale_input", "weight_scale", "input_scale", "scaled_fp8", "comfy_quant", ".SCB", "absmax")
_ADAPTERS = ("lora", "hada_", "lokr_", "oft_blocks", "dora_scale")
_REMEDY = "use the fp16, bf16 or fp32 version of it, or of a denoiser a GGUF file with --denoiser"
_AUTOENCODER = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


@dataclass(frozen=True)
class CheckpointHeader:
    """The header of a safetensors file.

    Attributes:
        tensors: key → tensor on the meta device, without values.
        formats: key → dtype, in safetensors' notation.
        metadata: metadata strings of the file (untrusted).
    """

    tensors: Mapping[str, Tensor]
    formats: Mapping[str, str]
    metadata: Mapping[str, str]

    @property
    def adapter(self) -> bool:
        """Whether the file is a LoRA or a related adapter."""
        return any(mark in name.lower() for name in self.tensors for mark in _ADAPTERS)

    @property
    def mistaken(self) -> str:
        """Description of a LoRA or an autoencoder that is given as a base model; empty for other files."""
        if self.adapter:
            return "a LoRA, not a base model"
        if self.tensors and all(name.startswith(_AUTOENCODER) for name in self.tensors):
            return "an autoencoder alone, which is for --vae"
        return ""

    @property
    def model(self) -> str:
        """diffusers' model type; empty if its detection fails, ``v1`` if it recognises nothing."""
        try:
            kind: str = infer_diffusers_model_type(dict(self.tensors))
        except Exception:  # the detection assumes tensors and shapes that some models lack
            return ""
        return kind


def read_checkpoint_header(file: Path, formats: Sequence[str] = FLOATS, *, remedy: str = _REMEDY) -> CheckpointHeader:
    """Returns the header of a checkpoint file.

    Args:
        file: file to read; must end in ``.safetensors``, so that no pickle is opened.
        formats: dtypes that the weights may have.
        remedy: advice for a file with weights of another dtype.

    Raises:
        BaseModelError: the file is not a complete safetensors file, or a weight has another dtype or needs a scale.
    """
    if file.suffix != ".safetensors":  # case-sensitive: diffusers opens all others, .SAFETENSORS too, as pickles
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
    return CheckpointHeader(tensors, kinds, metadata)


def _check_formats(file: Path, kinds: Mapping[str, str], formats: Sequence[str], remedy: str) -> None:
    few = {name: kind for name, kind in kinds.items() if kind not in FLOATS and not name.endswith(COUNTS)}
    if few and (scale := next((name for name in kinds if name.endswith(_SCALES)), None)):
        raise BaseModelError(f"its weights are stored in few bits with a scale ({scale}), which is not read", where=file, remedy=remedy)
    odd = next((name for name, kind in few.items() if kind not in formats), None)
    if odd is not None:
        raise BaseModelError(f"{odd} is stored as {kinds[odd]}, which is not read", where=file, remedy=remedy)
