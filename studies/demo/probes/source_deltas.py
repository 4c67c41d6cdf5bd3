"""What the demo sources add to the base's weights, for pictures that the base draws while sources are active."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor, nn

_PARTS = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder", "unet.": "unet", "text_encoder.": "text_encoder"}


def load_deltas(path: Path, pipeline: StableDiffusionPipeline) -> dict[nn.Parameter, Tensor]:
    """Weight of the pipeline → what the source adds to it at strength 1.

    Args:
        path: a file that ``train_source`` wrote, in any of its dialects: kohya, LyCORIS (LoHa) or diffusers.
        pipeline: the base.
    """
    tensors = load_file(path)
    modules = {prefix + _spelled(name, prefix): m for prefix, part in _PARTS.items() for name, m in getattr(pipeline, part).named_modules()}
    stems = {key[: key.index(tail)] for key in tensors for tail in (".hada_w1_a", ".lora_down.", ".lora_A.") if tail in key}
    return {modules[stem].weight: _delta(stem, tensors).to(modules[stem].weight).reshape_as(modules[stem].weight) for stem in sorted(stems)}


@contextmanager
def active(strengths: Mapping[str, float], deltas: Mapping[str, Mapping[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Within the block every named source is added at its strength; afterwards the weights are what they were.

    Args:
        strengths: name of a source → its strength.
        deltas: name of a source → what ``load_deltas`` returned for it.
    """
    kept: dict[nn.Parameter, Tensor] = {}
    try:
        for name, strength in strengths.items():
            for weight, delta in deltas[name].items():
                kept.setdefault(weight, weight.data)
                weight.data = weight.data + strength * delta
        yield
    finally:
        for weight, original in kept.items():
            weight.data = original


def _spelled(name: str, prefix: str) -> str:
    return name.replace(".", "_") if prefix.endswith("_") else name


def _delta(stem: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """ΔW of one module as a matrix, (out, in · kernel)."""
    if f"{stem}.hada_w1_a" in tensors:
        first, second = (tensors[f"{stem}.hada_w{i}_a"].float() @ tensors[f"{stem}.hada_w{i}_b"].float() for i in (1, 2))
        return first * second * _scale(stem, tensors, tensors[f"{stem}.hada_w1_b"].shape[0])
    down, up = ("lora_down", "lora_up") if f"{stem}.lora_down.weight" in tensors else ("lora_A", "lora_B")
    low, high = (tensors[f"{stem}.{name}.weight"].float().flatten(1) for name in (down, up))
    return high @ low * _scale(stem, tensors, len(low))


def _scale(stem: str, tensors: Mapping[str, Tensor], rank: int) -> float:
    """Alpha by rank; diffusers' files hold alpha in their header alone, where the demo's is twice the rank."""
    return float(tensors[f"{stem}.alpha"]) / rank if f"{stem}.alpha" in tensors else 2.0
