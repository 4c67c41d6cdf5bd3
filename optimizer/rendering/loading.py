"""How a base model is brought into memory, and what is done there to make it fit or go faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["auto", "fp32", "fp16", "bf16"]
Quantize = Literal["none", "nf4", "int8", "fp8"]
Offload = Literal["auto", "none", "model", "sequential"]
Apply = Literal["auto", "weights", "branch"]


@dataclass(frozen=True)
class Loading:
    """How a base model is brought into memory.

    Attributes:
        device: torch device; ``auto`` is cuda where there is one.
        precision: number format of the weights; ``auto`` is what suits the family, the device and its memory.
        vae: the folder of another autoencoder.
        denoiser: another U-Net or transformer: a folder, a single file, or a GGUF file.
        base_config: a diffusers folder that says how a single file is laid out.
        quantize: what the denoiser and T5 are quantised to while they are loaded.
        offload: which models wait in the computer's memory: ``model`` all but the one that computes, ``sequential`` all but the layer
            that computes; ``auto`` as little as the free memory asks for.
        apply: where a candidate goes: into the ``weights``, or into a low-rank ``branch`` beside them; ``auto`` takes the weights where
            they are not quantised and there is room.
        vae_slicing: decode one picture at a time.
        vae_tiling: decode large pictures tile by tile, which changes them a little.
        attention_slicing: compute attention head by head.
        compile: compile the denoiser with ``torch.compile``.
        cuda_graphs: record it as CUDA graphs, too.
    """

    device: str = "auto"
    precision: Precision = "auto"
    vae: str = ""
    denoiser: str = ""
    base_config: str = ""
    quantize: Quantize = "none"
    offload: Offload = "auto"
    apply: Apply = "auto"
    vae_slicing: bool = False
    vae_tiling: bool = False
    attention_slicing: bool = False
    compile: bool = False
    cuda_graphs: bool = False
