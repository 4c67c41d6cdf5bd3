"""Loading options of a base model: device, dtype, components, quantisation, offload and compilation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["auto", "fp32", "fp16", "bf16"]
Quantize = Literal["none", "nf4", "int8", "fp8"]
Offload = Literal["auto", "none", "model", "sequential"]
Apply = Literal["auto", "weights", "branch"]


@dataclass(frozen=True)
class Loading:
    """Loading options of a base model.

    Attributes:
        device: torch device; ``auto`` is cuda if available.
        precision: dtype of the weights; ``auto`` chooses by family, device and free memory.
        vae: folder or file of a replacement autoencoder; empty keeps the base's own.
        denoiser: replacement U-Net or transformer: a folder, a single file, or a GGUF file; empty keeps the base's own.
        base_config: diffusers folder that defines the layout of a single file.
        quantize: quantisation format of the denoiser and T5, applied while loading.
        offload: offload of models to CPU memory: ``model`` all but the active model, ``sequential`` all but the active layer; ``auto``
            as little as the free memory allows.
        apply: how a candidate is applied: added to the ``weights``, or as a low-rank ``branch`` in parallel; ``auto`` uses the weights
            if they are not quantised and memory suffices.
        vae_slicing: decode one image at a time.
        vae_tiling: decode large images in tiles, which changes them slightly.
        attention_slicing: compute attention in slices of heads.
        compile: compile the denoiser with ``torch.compile``.
        cuda_graphs: compile the denoiser and record it as CUDA graphs.
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
