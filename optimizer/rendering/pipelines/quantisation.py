"""Quantised models: what a part is quantised to while it is loaded, and whether it is."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from optimizer.errors import UsageError
from optimizer.rendering.families import models_of
from optimizer.rendering.loading import Quantize

PACKAGES: dict[Quantize, str] = {"nf4": "bitsandbytes", "int8": "torchao", "fp8": "torchao"}
"""What quantises, by format."""

_TORCHAO = {"int8": ("Int8WeightOnlyConfig", {"version": 2}), "fp8": ("Float8WeightOnlyConfig", {})}


def quantisation(kind: Quantize, dtype: torch.dtype, device: torch.device, *, text: bool = False) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that have the weights of linear layers quantised as they are read.

    Args:
        kind: ``nf4``, four bits in blocks of 64 (bitsandbytes; Dettmers et al. 2023, QLoRA, section 3), ``int8`` or ``fp8``, eight bits in
            rows (torchao, weights only); ``none`` gives no arguments.
        dtype: of what is computed with them.
        device: computes.
        text: for a model of transformers rather than of diffusers.

    Raises:
        UsageError: the package that does it is not there, or it needs a GPU.
    """
    if kind == "none":
        return {}
    package, library = PACKAGES[kind], transformers if text else diffusers
    if package == "bitsandbytes" and device.type == "cpu":
        raise UsageError("bitsandbytes needs a GPU here", where=f"--quantize {kind}", remedy="use int8, which runs on a CPU too")
    if find_spec(package) is None:
        raise UsageError(f"{package} is not installed", where=f"--quantize {kind}", remedy=f"pip install {package}")
    if package == "bitsandbytes":
        return {
            "quantization_config": library.BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
            )
        }
    name, options = _TORCHAO[kind]
    quant_type = getattr(import_module("torchao.quantization"), name)(**options)
    return {"quantization_config": library.TorchAoConfig(quant_type)}


def quantised_parts(pipeline: DiffusionPipeline) -> list[str]:
    """The components whose weights are quantised, however they came to be."""
    return [part for part, model in models_of(pipeline).items() if _is_quantised(model)]


def _is_quantised(model: nn.Module) -> bool:
    return bool(getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None))


def heavy_text_encoder(part: str, kind: str) -> bool:
    """Whether a text encoder is worth quantising: T5 is as large as many a denoiser, CLIP a fiftieth of it."""
    return part.startswith("text_encoder") and kind.startswith("T5")
