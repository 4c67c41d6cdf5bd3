"""Small adapter files in every dialect, made without the code under test.

Each maker writes one file and returns what its modules change, module by module, from an independent source: plain algebra for
LoRA, LyCORIS's own modules for LoCon, LoHa and LoKr.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]

ATTENTION = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
LINEAR: dict[str, tuple[int, ...]] = {
    f"{ATTENTION}.attn1.to_q": (16, 16),
    f"{ATTENTION}.attn1.to_out.0": (16, 16),
    f"{ATTENTION}.attn2.to_k": (16, 24),
    f"{ATTENTION}.ff.net.0.proj": (128, 16),
    f"{ATTENTION}.ff.net.2": (16, 64),
    "unet.down_blocks.1.resnets.1.time_emb_proj": (16, 64),
    "unet.time_embedding.linear_1": (64, 16),
}
TEXT: dict[str, tuple[int, ...]] = {
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (16, 16),
    "text_encoder.text_model.encoder.layers.0.self_attn.out_proj": (16, 16),
    "text_encoder.text_model.encoder.layers.1.mlp.fc1": (32, 16),
}
CONVOLUTION: dict[str, tuple[int, ...]] = {
    "unet.conv_in": (16, 4, 3, 3),
    "unet.up_blocks.1.resnets.2.conv1": (16, 40, 3, 3),
    "unet.up_blocks.1.resnets.2.conv_shortcut": (16, 40, 1, 1),
    "unet.down_blocks.0.downsamplers.0.conv": (16, 16, 3, 3),
    "unet.mid_block.attentions.0.proj_in": (24, 24, 1, 1),
}
SHAPES: dict[str, tuple[int, ...]] = {**LINEAR, **TEXT, **CONVOLUTION}


@dataclass(frozen=True)
class Made:
    """A written file and what it changes: canonical module path → ΔW (fp32, of the weight's shape)."""

    path: Path
    deltas: dict[str, Tensor]


@dataclass(frozen=True)
class Part:
    """One module's LoRA as a trainer holds it: ``up`` (out, r) and ``down`` (r, in[, kh, kw]), fp16 values, and alpha."""

    up: Tensor
    down: Tensor
    alpha: float

    def delta(self) -> Tensor:
        """(alpha / r) · up @ down, of the weight's shape."""
        product = self.up.float() @ self.down.float().flatten(1)
        return (self.alpha / self.down.shape[0] * product).reshape(self.up.shape[0], *self.down.shape[1:])


def random_parts(
    shapes: Shapes = SHAPES, rank: int | Callable[[int], int] = 4, alpha: float | Callable[[int], float] = 2.0, seed: int = 0
) -> dict[str, Part]:
    """A random LoRA over the modules.

    Args:
        shapes: canonical path → weight shape.
        rank: rank of every module, or index of the module → its rank.
        alpha: alpha of every module, or index of the module → its alpha.
        seed: seeds the values.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for index, (path, (out, *rest)) in enumerate(shapes.items()):
        r = rank(index) if callable(rank) else rank
        up, down = torch.randn(out, r, generator=generator) * 0.1, torch.randn(r, *rest, generator=generator) * 0.1
        parts[path] = Part(up.half(), down.half(), float(alpha(index) if callable(alpha) else alpha))
    return parts


def kohya_name(path: str, text: str = "lora_te_") -> str:
    """A canonical path as sd-scripts spells it."""
    part, name = path.split(".", 1)
    return {"unet": "lora_unet_", "text_encoder": text, "text_encoder_2": "lora_te2_"}[part] + name.replace(".", "_")


def kohya_file(
    path: Path, parts: Mapping[str, Part], *, text: str = "lora_te_", alphas: bool = True, metadata: dict[str, str] | None = None
) -> Made:
    """As sd-scripts writes it; with ``alphas`` off, alpha is the rank."""
    tensors: dict[str, Tensor] = {}
    for module, part in parts.items():
        name, ones = kohya_name(module, text), (1,) * (part.down.ndim - 2)
        tensors[f"{name}.lora_up.weight"] = part.up.reshape(*part.up.shape, *ones)
        tensors[f"{name}.lora_down.weight"] = part.down
        if alphas:
            tensors[f"{name}.alpha"] = torch.tensor(part.alpha)
    return _write(path, tensors, parts, alphas, metadata)


def diffusers_file(
    path: Path,
    parts: Mapping[str, Part],
    *,
    suffixes: tuple[str, str] = (".lora_B.weight", ".lora_A.weight"),
    prefix: str = "",
    rename: Callable[[str], str] = str,
    config: dict[str, Any] | None = None,
    alphas: bool = False,
) -> Made:
    """As diffusers or PEFT writes it.

    Args:
        path: the new file.
        parts: what to write.
        suffixes: suffixes of up and down.
        prefix: in front of every name.
        rename: canonical path → module name in the file.
        config: the JSON that diffusers stores in the header.
        alphas: whether the parts' alphas hold (because the caller declares them somehow); otherwise alpha is the rank.
    """
    tensors: dict[str, Tensor] = {}
    for module, part in parts.items():
        ones = (1,) * (part.down.ndim - 2)
        tensors[f"{prefix}{rename(module)}{suffixes[0]}"] = part.up.reshape(*part.up.shape, *ones)
        tensors[f"{prefix}{rename(module)}{suffixes[1]}"] = part.down
    metadata = {"format": "pt"} | ({"lora_adapter_metadata": json.dumps(config)} if config else {})
    return _write(path, tensors, parts, alphas, metadata)


def old_processor_name(path: str) -> str:
    """The names that diffusers' attention processors gave: ``attn1.processor.to_out_lora`` for ``attn1.to_out.0``."""
    module, leaf = path.removesuffix(".0").rsplit(".", 1)
    return f"{module}.processor.{leaf}_lora"


def lycoris_file(
    path: Path, kind: type[Any], shapes: Shapes = SHAPES, *, prefix: str = "lora_unet_", seed: int = 0, **options: Any
) -> Made:
    """Modules of LyCORIS (LoConModule, LohaModule, LokrModule) with random values, as LyCORIS saves them.

    Args:
        path: the new file.
        kind: the LyCORIS class.
        shapes: canonical path → weight shape; U-Net and text encoder.
        prefix: in front of the flattened name of a U-Net module.
        seed: seeds the values.
        options: ``lora_dim``, ``alpha``, ``use_tucker``, ``decompose_both`` …, as LyCORIS names them.
    """
    tensors: dict[str, Tensor] = {}
    deltas: dict[str, Tensor] = {}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for module, shape in shapes.items():
            layer = lycoris_module(kind, shape, **options)
            flat = kohya_name(module)
            name = flat.replace("lora_unet_", prefix, 1)
            tensors |= {f"{name}.{key}": value.detach().clone() for key, value in layer.custom_state_dict().items()}
            deltas[module] = lycoris_delta(layer, shape)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return Made(path, deltas)


def lycoris_module(kind: type[Any], shape: tuple[int, ...], **options: Any) -> Any:
    """A LyCORIS module over a weight of the shape, every parameter random."""
    if len(shape) == 2:
        base: nn.Module = nn.Linear(shape[1], shape[0], bias=False)
    else:
        base = nn.Conv2d(shape[1], shape[0], shape[2], padding=shape[2] // 2, bias=False)
    module = kind("module", base, 1.0, **options)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def lycoris_delta(module: Any, shape: tuple[int, ...]) -> Tensor:
    """What the module's forward pass adds to the weight.

    LoHa's and LoKr's ``get_weight`` holds the scale already; their ``get_diff_weight`` (lycoris-lora 4.1) applies it once more.
    """
    if isinstance(module, LoConModule):
        return torch.clone(module.get_diff_weight(shape=shape)[0].detach())
    assert isinstance(module, LohaModule | LokrModule)
    return torch.clone(module.get_weight(shape).detach())


def edited(source: Path, target: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """A copy of an adapter file with its tensors changed in place by the function."""
    tensors = load_file(source)
    change(tensors)
    save_file(tensors, target)
    return target


def _write(path: Path, tensors: dict[str, Tensor], parts: Mapping[str, Part], alphas: bool, metadata: dict[str, str] | None) -> Made:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    own = {module: part if alphas else Part(part.up, part.down, float(part.down.shape[0])) for module, part in parts.items()}
    return Made(path, {module: part.delta() for module, part in own.items()})
