"""The demo world's sources: seven LoRAs trained on the demo base in the ordinary way, on small captioned picture sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from peft import LoHaConfig, LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file
from torch import Tensor, nn

from studies.demo.base_model.base import encode, token_ids
from studies.demo.base_model.diffusion import denoising_loss
from studies.demo.drawing.characters import CHARACTERS
from studies.demo.drawing.draw import Pixels, draw
from studies.demo.drawing.scenes import Scene, random_scene, with_character
from studies.demo.drawing.styles import FLAT, STYLES, Style
from studies.demo.training import Plan, fit

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
CONVOLUTION = (*FEED_FORWARD, "conv1", "conv2", "conv_shortcut", "time_emb_proj")
_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
_BATCH = 12


@dataclass(frozen=True)
class SourceSpec:
    """How one source is made.

    Attributes:
        name: its name and, for styles and characters, the name of its drawing procedure.
        role: ``style``, ``character`` or ``concept``.
        trigger: the word that asks for it; empty for a source that is always on.
        rank, alpha: rank and alpha of every module.
        targets: module names inside the U-Net that are trained.
        dialect: ``kohya``, ``diffusers`` or ``loha`` (LyCORIS).
        text: whether the text encoder is trained too.
        pictures: size of the training set.
        steps, rate: length and peak learning rate of the training.
    """

    name: str
    role: str
    trigger: str
    rank: int
    alpha: int
    targets: tuple[str, ...]
    dialect: str
    text: bool = False
    pictures: int = 30
    steps: int = 500
    rate: float = 2e-3

    def caption(self, scene: Scene) -> str:
        """The prompt that asks for this source in a scene."""
        return scene.caption(*([self.trigger] if self.trigger and self.role != "character" else []))

    def scene(self, rng: np.random.Generator, pairs: float = 0.4) -> Scene:
        """A random scene that shows the source's trait, as far as that is a matter of the scene."""
        scene = random_scene(rng, pairs)
        if self.role == "character":
            return with_character(scene, self.trigger, CHARACTERS[self.name], rng)
        return replace(scene, hat=True) if self.role == "concept" else scene

    def style(self) -> Style:
        """What the scene is drawn in."""
        return STYLES[self.name] if self.role == "style" else FLAT


SOURCES: dict[str, SourceSpec] = {
    spec.name: spec
    for spec in (
        SourceSpec("neon", "style", "", 8, 4, ATTENTION, "kohya", steps=1000, rate=4e-3),
        SourceSpec("mosaic", "style", "tesse", 16, 8, CONVOLUTION, "kohya", rate=4e-3),
        SourceSpec("pencil", "style", "grafo", 4, 4, FEED_FORWARD, "loha", steps=700, rate=4e-3),
        SourceSpec("robot", "character", "rivet", 8, 16, CONVOLUTION, "diffusers", text=True, steps=1000),
        SourceSpec("octopus", "character", "inko", 8, 16, CONVOLUTION, "diffusers", text=True, steps=1300),
        SourceSpec("owl", "character", "hooty", 8, 16, CONVOLUTION, "kohya", text=True, steps=1000),
        SourceSpec("hat", "concept", "fezzo", 8, 16, CONVOLUTION, "kohya", steps=700),
    )
}


def train_source(spec: SourceSpec, pipeline: StableDiffusionPipeline, work: Path, scale: float) -> Path:
    """Train one source on the frozen base and write its file; returns the file's path."""
    torch.manual_seed(7)
    pictures, captions = training_set(spec)
    latents = encode(pipeline.vae, pictures).float()
    ids = token_ids(pipeline.tokenizer, captions)
    unet, text = pipeline.unet.requires_grad_(False), pipeline.text_encoder.requires_grad_(False)
    inject_adapter_in_model(_config(spec, spec.targets), unet, "default")
    if spec.text:
        inject_adapter_in_model(_config(spec, _TEXT), text, "default")
    with torch.no_grad():
        fixed = None if spec.text else text(ids).last_hidden_state

    def loss(rng: np.random.Generator) -> Tensor:
        picked = torch.from_numpy(rng.integers(len(latents), size=_BATCH))
        states = fixed[picked] if fixed is not None else text(ids[picked]).last_hidden_state
        return denoising_loss(unet, pipeline.scheduler, latents[picked], states, rng, weighted=False)

    plan = Plan(round(spec.steps * scale), spec.rate, average=0.98, seed=7)
    fit([unet, text], loss, plan, work / f"source-{spec.name}.pt")
    return _write(spec, unet, text, work / f"{spec.name}.safetensors")


def training_set(spec: SourceSpec) -> tuple[Pixels, list[str]]:
    """The pictures (n, 64, 64, 3) uint8 and captions that the source learns from."""
    rng = np.random.default_rng((7, len(spec.name), ord(spec.name[0])))
    scenes = [spec.scene(rng, pairs=0.5) for _ in range(spec.pictures)]
    pictures = [np.round(draw(scene, (spec.style(),), rng=rng) * 255).astype(np.uint8) for scene in scenes]
    return np.stack(pictures), [spec.caption(scene) for scene in scenes]


def _config(spec: SourceSpec, targets: Sequence[str]) -> LoraConfig | LoHaConfig:
    if spec.dialect == "loha":
        return LoHaConfig(r=spec.rank, alpha=spec.alpha, target_modules=list(targets), use_effective_conv2d=False)
    return LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules=list(targets))


def _write(spec: SourceSpec, unet: nn.Module, text: nn.Module, path: Path) -> Path:
    states = {"unet": _state(unet)}
    if spec.text:
        states["text_encoder"] = _state(text)
    metadata = {
        "ss_output_name": spec.name,
        "ss_base_model_version": "demo",
        "modelspec.trigger_phrase": spec.trigger,
        "modelspec.tags": spec.role,
    }
    if spec.dialect == "diffusers":
        StableDiffusionPipeline.save_lora_weights(
            path.parent,
            unet_lora_layers=states["unet"],
            text_encoder_lora_layers=states.get("text_encoder"),
            weight_name=path.name,
            unet_lora_adapter_metadata=_config(spec, spec.targets).to_dict(),
            text_encoder_lora_adapter_metadata=_config(spec, _TEXT).to_dict() if spec.text else None,
        )
        return path
    convert = _lycoris if spec.dialect == "loha" else _kohya
    tensors = {key: value for part, state in states.items() for key, value in convert(part, state, spec.alpha).items()}
    save_file(tensors, path, metadata | {"ss_network_dim": str(spec.rank), "ss_network_alpha": str(spec.alpha)})
    return path


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().half().contiguous() for key, value in get_peft_model_state_dict(model, adapter_name="default").items()}


def _kohya(part: str, state: dict[str, Tensor], alpha: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = convert_state_dict_to_kohya({f"{part}.{key}": value for key, value in state.items()})
    return {key: torch.tensor(float(alpha)) if key.endswith(".alpha") else value for key, value in tensors.items()}


def _lycoris(part: str, state: dict[str, Tensor], alpha: int) -> dict[str, Tensor]:
    prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[part]
    tensors: dict[str, Any] = {}
    for key, value in state.items():
        module, factor = key.rsplit(".", 1)
        flat = prefix + module.replace(".", "_")
        tensors[f"{flat}.{factor}"] = value
        tensors[f"{flat}.alpha"] = torch.tensor(float(alpha))
    return tensors


def write_index(specs: Sequence[SourceSpec], folder: Path) -> None:
    """Write ``sources.json``: what a user of the demo sources has to know: role, trigger and file."""
    index = {s.name: {"role": s.role, "trigger": s.trigger, "file": f"{s.name}.safetensors"} for s in specs}
    (folder / "sources.json").write_text(json.dumps(index, indent=1) + "\n")
