"""What a single file says of the noise that its model was trained to take away: whether it predicts noise or velocities, down to where."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
from safetensors import safe_open

from optimizer.checkpoints.header import Header

VELOCITY, NOISE = "v_prediction", "epsilon"
_SPELT = {"v": VELOCITY, "v_prediction": VELOCITY, "epsilon": NOISE}
# ComfyUI tells the two kinds of Stable Diffusion 2 apart by this spread (comfy/supported_models.py, SD20.model_type).
_TELLING = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
_SPREAD = 0.09


@dataclass(frozen=True)
class Noise:
    """What is known of it.

    Attributes:
        prediction: diffusers' ``prediction_type``; empty where the file says nothing.
        rescaled: the model was trained down to no signal at all.
        reason: how that is known.
    """

    prediction: str = ""
    rescaled: bool = False
    reason: str = ""


def marked(header: Header) -> Noise:
    """What tensors say that carry no weights: ``v_pred`` and ``ztsnr``, as trainers write and ComfyUI reads them."""
    rescaled = "ztsnr" in header.tensors
    if "v_pred" in header.tensors:
        return Noise(VELOCITY, rescaled, "its tensor v_pred")
    return Noise(rescaled=True, reason="its tensor ztsnr") if rescaled else Noise()


def told(file: Path, header: Header, kind: str) -> Noise:
    """What a file says, by its tensors first, by ``modelspec.prediction_type`` in its metadata second (ModelSpec 1.0.1), and of Stable
    Diffusion 2, which exists in both kinds of one shape, by ComfyUI's rule of thumb last."""
    noise = marked(header)
    said = _SPELT.get(header.metadata.get("modelspec.prediction_type", "").lower(), "")
    if noise.prediction or not (said or kind == "v2"):
        return noise
    if said:
        return Noise(said, noise.rescaled, "its metadata")
    wide = _spread(file, header) > _SPREAD
    return Noise(VELOCITY if wide else NOISE, noise.rescaled, "ComfyUI's rule of thumb for Stable Diffusion 2")


def _spread(file: Path, header: Header) -> float:
    if _TELLING not in header.tensors:
        return 0.0
    with safe_open(file, framework="pt") as opened:
        return float(opened.get_tensor(_TELLING).float().std(unbiased=False))


def scheduled(scheduler: Any, noise: Noise) -> Any:
    """A scheduler that goes with what a file says; those that match flows have no choice, and stay.

    One that cannot rescale its noise gives way to DDIM with the same noise.
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
