"""Quantisation: arguments that quantise a component while it is loaded, and detection of quantised components."""

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
from optimizer.rendering.loading import Quantize
from optimizer.rendering.pipeline_class import models_of

PACKAGES: dict[Quantize, str] = {"nf4": "bitsandbytes", "int8": "torchao", "fp8": "torchao"}
"""Package that implements each quantisation format."""

_TORCHAO = {"int8": ("Int8WeightOnlyConfig", {"version": 2}), "fp8": ("Float8WeightOnlyConfig", {})}


def quantisation(kind: Quantize, dtype: torch.dtype, device: torch.device, *, text: bool = False) -> dict[str, Any]:
    """Returns arguments of ``from_pretrained`` that quantise the weights of linear layers while loading.

    Args:
        kind: ``nf4``, four bits in blocks of 64 (bitsandbytes; Dettmers et al. 2023, QLoRA, section 3), ``int8`` or ``fp8``, eight bits in
            rows (torchao, weights only); ``none`` gives no arguments.
        dtype: compute dtype.
        device: device that computes.
        text: whether the model is from transformers rather than diffusers.

    Raises:
        UsageError: the required package is not installed, or needs a GPU.
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
    """Returns the names of the components whose weights are quantised, at loading or in the files."""
    return [part for part, model in models_of(pipeline).items() if _is_quantised(model)]


def _is_quantised(model: nn.Module) -> bool:
    return bool(getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None))


def heavy_text_encoder(part: str, kind: str) -> bool:
    """Returns whether a text encoder is worth quantising: T5 is as large as many denoisers, CLIP about a fiftieth of that."""
    return part.startswith("text_encoder") and kind.startswith("T5")
