"""Detects the prediction type (noise or velocity) of a single file, and whether its model was trained with zero terminal SNR."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
from safetensors import safe_open

from optimizer.checkpoints.header import CheckpointHeader

VELOCITY, NOISE = "v_prediction", "epsilon"
_SPELT = {"v": VELOCITY, "v_prediction": VELOCITY, "epsilon": NOISE}
# ComfyUI distinguishes the two variants of Stable Diffusion 2 by this standard deviation (comfy/supported_models.py, SD20.model_type).
_TELLING = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
_SPREAD = 0.09


@dataclass(frozen=True)
class Noise:
    """The detected noise schedule properties of a model.

    Attributes:
        prediction: diffusers' ``prediction_type``; empty if the file does not state it.
        rescaled: whether the model was trained with zero terminal SNR.
        reason: human-readable source of the information.
    """

    prediction: str = ""
    rescaled: bool = False
    reason: str = ""


def marked_noise(header: CheckpointHeader) -> Noise:
    """Returns the noise properties stated by the marker tensors ``v_pred`` and ``ztsnr``, which trainers write and ComfyUI reads."""
    rescaled = "ztsnr" in header.tensors
    if "v_pred" in header.tensors:
        return Noise(VELOCITY, rescaled, "its tensor v_pred")
    return Noise(rescaled=True, reason="its tensor ztsnr") if rescaled else Noise()


def stated_noise(file: Path, header: CheckpointHeader, kind: str) -> Noise:
    """Returns the noise properties of a file.

    Sources, in order: marker tensors; ``modelspec.prediction_type`` in the metadata (ModelSpec 1.0.1); for Stable Diffusion 2, whose two
    variants have equal shapes, ComfyUI's heuristic.
    """
    noise = marked_noise(header)
    said = _SPELT.get(header.metadata.get("modelspec.prediction_type", "").lower(), "")
    if noise.prediction or not (said or kind == "v2"):
        return noise
    if said:
        return Noise(said, noise.rescaled, "its metadata")
    wide = _spread(file, header) > _SPREAD
    return Noise(VELOCITY if wide else NOISE, noise.rescaled, "ComfyUI's rule of thumb for Stable Diffusion 2")


def _spread(file: Path, header: CheckpointHeader) -> float:
    if _TELLING not in header.tensors:
        return 0.0
    with safe_open(file, framework="pt") as opened:
        return float(opened.get_tensor(_TELLING).float().std(unbiased=False))


def scheduler_with(scheduler: Any, noise: Noise) -> Any:
    """Returns a scheduler with the noise properties of a file; flow-matching schedulers are returned unchanged.

    A scheduler that cannot rescale its betas to zero terminal SNR is replaced by DDIM with its configuration.
    """
    if not hasattr(scheduler.config, "prediction_type"):
        return scheduler
    change: dict[str, Any] = {"prediction_type": noise.prediction} if noise.prediction else {}
    kind = type(scheduler)
    if noise.rescaled:
        change["rescale_betas_zero_snr"] = True
        if "rescale_betas_zero_snr" not in signature(kind.__init__).parameters:
            kind, change["clip_sample"] = diffusers.DDIMScheduler, False
    return kind.from_config(scheduler.config, **change) if change else scheduler
